// Records tests/data/express-sessions.json: sessions as the real express-session and
// connect-pg-simple make them. In an empty folder, with an empty database:
//
//   npm install express express-session connect-pg-simple pg
//   DATABASE_URL='postgresql://…' node …/record-express-sessions.mjs > …/express-sessions.json

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/`);
const express = require("express");
const session = require("express-session");
const PostgresStore = require("connect-pg-simple")(session);
const pool = new (require("pg").Pool)({ connectionString: process.env.DATABASE_URL });

const secret = "invented-for-these-recordings-and-used-nowhere-else";
const users = [
  { id: "6f1c2a34-9a0b-4c1d-8e2f-3a4b5c6d7e8f", email: "old.ada@example.com" },
  { id: "0b9d8c7e-1f2a-4b3c-9d4e-5f6a7b8c9d0e", email: "old.grace@example.com" },
];

const app = express();
app.use(
  session({
    store: new PostgresStore({ pool, createTableIfMissing: true }),
    secret,
    resave: false,
    saveUninitialized: false,
    cookie: { maxAge: 24 * 60 * 60 * 1000 },
  }),
);
app.post("/login/:number", (request, response) => {
  request.session.userId = users[request.params.number].id;
  response.end();
});

const server = app.listen(0, "127.0.0.1");
await new Promise((resolve) => server.once("listening", resolve));
const sessions = [];
for (let number = 0; number < 12; number++) {
  const url = `http://127.0.0.1:${server.address().port}/login/${number % users.length}`;
  const response = await fetch(url, { method: "POST" });
  const cookie = response.headers.get("set-cookie");
  const sid = decodeURIComponent(cookie).match(/=s:([^.]+)/)[1];
  const { rows } = await pool.query(
    "SELECT sid, sess::text, expire::text FROM session WHERE sid = $1",
    [sid],
  );
  sessions.push({ cookie, ...rows[0] });
}
server.close();
await pool.end();

const versions = Object.fromEntries(
  ["express", "express-session", "connect-pg-simple", "pg"].map((name) => [
    name,
    JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version,
  ]),
);
const table = readFileSync("node_modules/connect-pg-simple/table.sql", "utf8");
console.log(JSON.stringify({ versions, secret, users, table, sessions }, null, 2));
