// Records tests/data/better-auth-recorded.json: the tables `user` and `account` as better-auth
// itself fills them. In an empty folder:
//
//   npm install better-auth
//   node …/record-better-auth.mjs > …/better-auth-recorded.json

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.cwd()}/`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { betterAuth } = await load("better-auth");
const { memoryAdapter } = await load("better-auth/adapters/memory");
const { admin } = await load("better-auth/plugins");

const tables = { user: [], account: [], session: [], verification: [] };
const auth = betterAuth({
  baseURL: "http://localhost:3000",
  secret: "invented-for-these-recordings-and-used-nowhere-else",
  database: memoryAdapter(tables),
  emailAndPassword: { enabled: true },
  plugins: [admin()],
});

const password = "correct horse 42";
for (const name of ["Ada", "Bob", "Cat"]) {
  const email = `${name.toLowerCase()}@example.com`;
  await auth.api.signUpEmail({ body: { email, password, name } });
}
await auth.api.signUpEmail({
  body: { email: "unicode@example.com", password: "ﬁne pässword ½", name: "Ünicode 😀" },
});

const context = await auth.$context;
const [ada, bob, cat] = tables.user;
await context.internalAdapter.updateUser(ada.id, { emailVerified: true, role: "admin" });
await context.internalAdapter.updateUser(bob.id, { banned: true, banReason: "spam" });
await context.internalAdapter.linkAccount({
  userId: cat.id,
  providerId: "google",
  accountId: "108000000000000000001",
});
console.log(JSON.stringify({ user: tables.user, account: tables.account }, null, 1));
