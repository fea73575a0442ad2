// Uploads, downloads and edits by @huggingface/hub: a call as JSON on stdin, its answer on stdout. What the package asks
// of a Hub is answered here; what it asks of the CAS goes to the server under test.
import { openAsBlob } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { json } from "node:stream/consumers";

import { commit, downloadFile } from "@huggingface/hub";

const HUB = "http://hub.invalid";
const ACCESS_TOKEN = "hf_of_nobody";

const asked = await json(process.stdin);
const requests = []; // what the CAS was asked: method, path, Range and status
const committed = {}; // by path: what a commit says of each file
const stored = {}; // by path: hash and size of what may be downloaded

function tokenFor(scope) {
  const [accessToken, exp] = asked.tokens[scope];
  return { casUrl: asked.cas, exp, accessToken };
}

// The routes of a Hub that uploads and downloads pass by.
async function hub(url, init) {
  const path = decodeURIComponent(new URL(url).pathname);
  const body = init.body === undefined ? "" : String(init.body);
  if (path.includes("/preupload/")) {
    const files = JSON.parse(body).files.map(({ path }) => ({ path, uploadMode: "lfs", shouldIgnore: false }));
    return Response.json({ files });
  }
  if (path.endsWith(".git/info/lfs/objects/batch")) {
    const { casUrl, exp, accessToken } = tokenFor("write");
    const header = { "X-Xet-Cas-Url": casUrl, "X-Xet-Access-Token": accessToken, "X-Xet-Token-Expiration": String(exp) };
    const upload = { href: `${HUB}/api/models/some/model/xet-write-token/main`, header };
    const objects = JSON.parse(body).objects.map((object) => ({ ...object, actions: { upload } }));
    return Response.json({ transfer: "xet", objects });
  }
  if (path.includes("/xet-write-token") || path.includes("/xet-read-token")) {
    return Response.json(tokenFor(path.includes("write") ? "write" : "read"));
  }
  if (path.includes("/commit/")) {
    for (const { key, value } of body.split("\n").map((line) => JSON.parse(line))) {
      if (key === "lfsFile") committed[value.path] = { sha256: value.oid };
    }
    return Response.json({ success: true, commitOid: "0".repeat(40), commitUrl: HUB, hookOutput: "" });
  }
  if (path.endsWith("/batch")) {
    for (const { path, xetHash } of body.split("\n").map((line) => JSON.parse(line))) committed[path] = { hash: xetHash };
    return Response.json({ success: true, failed: [] });
  }
  if (path.includes("/resolve/")) {
    const { hash, size } = stored[path.split("/").at(-1)];
    const links = [
      `<${HUB}/api/models/some/model/xet-read-token/main>; rel="xet-auth"`,
      `<${asked.cas}/v1/reconstructions/${hash}>; rel="xet-reconstruction-info"`,
    ];
    const headers = {
      "Content-Type": "application/vnd.xet-fileinfo+json",
      "X-Linked-Size": String(size),
      "X-Xet-Hash": hash,
      ETag: `"${hash}"`,
      Link: links.join(", "),
    };
    return new Response("{}", { headers });
  }
  throw new Error(`the tests' Hub knows no ${path}`);
}

async function fetchEither(input, init = {}) {
  const url = String(input);
  if (url.startsWith(HUB)) return hub(url, init);
  const answer = await fetch(url, init);
  const range = new Headers(init.headers).get("Range") ?? "";
  requests.push([init.method ?? "GET", new URL(url).pathname, range, answer.status]);
  return answer;
}

const common = { hubUrl: HUB, accessToken: ACCESS_TOKEN, fetch: fetchEither };

async function blobOf({ hash, size, parallel = true }) {
  stored[hash] = { hash, size };
  return await downloadFile({ ...common, repo: "some/model", path: hash, parallelDownloads: parallel });
}

const calls = {
  async upload({ repo, files }) {
    const operations = files.map(async ({ path, file }) => ({
      operation: "addOrUpdate",
      path,
      content: await openAsBlob(file),
    }));
    await commit({ ...common, repo, title: "files", operations: await Promise.all(operations) });
    return { committed };
  },

  async download({ files }) {
    for (const file of files) {
      const blob = await blobOf(file);
      const wanted = file.start === null ? blob : blob.slice(file.start, file.end);
      await writeFile(file.out, new Uint8Array(await wanted.arrayBuffer()));
    }
    return {};
  },

  // Bytes of a stored file replaced, the rest of it neither read nor sent.
  async edit({ repo, path, original, edits }) {
    const replaced = edits.map(async ({ start, end, file }) => ({ start, end, content: new Blob([await readFile(file)]) }));
    const operation = { operation: "edit", path, originalContent: await blobOf(original), edits: await Promise.all(replaced) };
    await commit({ ...common, repo, title: "an edit", operations: [operation] });
    return { committed };
  },
};

let answer;
try {
  answer = await calls[asked.call](asked.subject);
} catch (error) {
  answer = { error: error.name, message: error.message, status: error.statusCode };
}
process.stdout.write(JSON.stringify({ ...answer, requests }));
