// Decodes LZ4 frames with lz4js, the reader that browsers use.
// In, by stdin: records of u32 frame length, u32 raw length (little-endian), frame. Out: the raw bytes of all.
"use strict";

const fs = require("node:fs");
const lz4 = require("lz4js");

const input = fs.readFileSync(0);
const output = [];
for (let at = 0; at < input.length; ) {
  const frameBytes = input.readUInt32LE(at);
  const rawBytes = input.readUInt32LE(at + 4);
  const frame = new Uint8Array(input.subarray(at + 8, at + 8 + frameBytes));
  const raw = lz4.decompress(frame, rawBytes);
  if (raw.length !== rawBytes) {
    throw new Error(`${raw.length} bytes where ${rawBytes} were expected, at ${at}`);
  }
  output.push(Buffer.from(raw));
  at += 8 + frameBytes;
}
fs.writeSync(1, Buffer.concat(output));
