// Asks with Neon's own driver what stands in the input, and prints what it was told, both as JSON.
//
// node neon_driver.mjs <the driver's index.mjs> < calls. A call has `url`, `endpoint`, and one of
// `query` with `params` and `queries` (a list of both, for a transaction), `options`, and
// `abortAfter` in milliseconds. A value {"bytes": "…"} stands for a Buffer, in hexadecimal.

import { readFileSync } from 'node:fs';

const { neon, neonConfig } = await import(process.argv[2]);

function given(value) {
  return value !== null && typeof value === 'object' && 'bytes' in value
    ? Buffer.from(value.bytes, 'hex')
    : value;
}

async function ask(call) {
  const asked = [];
  neonConfig.fetchEndpoint = () => call.endpoint;
  neonConfig.fetchFunction = async (url, request) => {
    asked.push({ url, method: request.method, headers: request.headers, body: request.body });
    const answer = await fetch(url, request);
    asked.at(-1).answered = Object.fromEntries(answer.headers);
    return answer;
  };
  const options = { ...call.options };
  if (call.abortAfter !== undefined) {
    options.fetchOptions = { signal: AbortSignal.timeout(call.abortAfter) };
  }
  try {
    const sql = neon(call.url, call.queries ? {} : options);
    const prepared = ({ query, params, ...own }) => sql.query(query, (params ?? []).map(given), own);
    const result = call.queries
      ? await sql.transaction(call.queries.map(prepared), options)
      : await prepared({ query: call.query, params: call.params });
    return { asked, result };
  } catch (error) {
    return { asked, error: { ...error, message: error.message } };
  }
}

const outcomes = [];
for (const call of JSON.parse(readFileSync(0, 'utf8'))) {
  outcomes.push(await ask(call));
}
// Of a Buffer JSON has its bytes, and of a big number nothing at all.
console.log(JSON.stringify(outcomes));
