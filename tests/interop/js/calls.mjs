// Functions of @huggingface/hub against a real Hub: a call as a line of JSON on stdin, its result as one on stdout.
// An argument {"$file": PATH} is the file as a blob; a result that is a blob is written to a file, and named so.
import { openAsBlob } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";

import * as hub from "@huggingface/hub";

const [hubUrl, accessToken, folder] = process.argv.slice(2);
for (const name of ["debug", "info", "log"]) console[name] = console.error; // stdout is for answers
const common = { hubUrl, ...(accessToken ? { accessToken } : {}) };

async function withFiles(value) {
  if (Array.isArray(value)) return Promise.all(value.map(withFiles));
  if (value === null || typeof value !== "object") return value;
  if ("$file" in value) return openAsBlob(value.$file);
  const entries = Object.entries(value).map(async ([key, one]) => [key, await withFiles(one)]);
  return Object.fromEntries(await Promise.all(entries));
}

async function asJson(value) {
  if (value instanceof Blob) {
    const path = join(await mkdtemp(join(folder, "out-")), "blob");
    await writeFile(path, new Uint8Array(await value.arrayBuffer()));
    return { $file: path };
  }
  if (value?.[Symbol.asyncIterator] && !Array.isArray(value)) {
    const all = [];
    for await (const one of value) all.push(one);
    return all;
  }
  return value ?? null;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { name, slice, arguments: given } = JSON.parse(line);
  let told;
  try {
    let result = await hub[name]({ ...common, ...(await withFiles(given)) });
    if (slice) result = result.slice(...slice);
    told = { result: await asJson(result) };
  } catch (error) {
    told = { names: [error.name], message: error.message, status: error.statusCode ?? null };
  }
  process.stdout.write(`${JSON.stringify(told)}\n`);
}
