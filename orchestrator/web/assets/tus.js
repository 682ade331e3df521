// Resumable upload, tus 1.0.0, to an address that exists already. The other end knows how far it is; after
// every failure it is asked, and the file goes on from there.

import { CallFailed, mayPass, pause, send, wait } from "./sending.js";

const VERSION = { "Tus-Resumable": "1.0.0" };
const MIB = 1024 * 1024;
// The provider takes 5 to 200 MiB in multiples of 256 KiB; doubling from 5 keeps to that. 40 MiB is a few seconds
// of a good line, and what a failure costs at most.
const CHUNK_MIN = 5 * MIB;
const CHUNK_MAX = 40 * MIB;
const QUICK_MS = 3000;
const SLOW_MS = 20_000;
// Failures in a row without a byte of progress; with the pauses about two minutes.
const TRIES_MAX = 8;

export async function offsetAt(url, signal) {
  const answer = await send("HEAD", url, { headers: VERSION, signal });
  const offset = Number(answer.getResponseHeader("Upload-Offset") ?? NaN);
  if (!Number.isInteger(offset) || offset < 0) throw new CallFailed(0, "the upload address does not tell how far it is");
  return offset;
}

async function sendChunk(file, url, offset, size, onSent, signal) {
  const answer = await send("PATCH", url, {
    headers: { ...VERSION, "Upload-Offset": String(offset), "Content-Type": "application/offset+octet-stream" },
    body: file.slice(offset, Math.min(offset + size, file.size)),
    onSent: (bytes) => onSent(offset + bytes),
    signal,
  });
  const reached = Number(answer.getResponseHeader("Upload-Offset") ?? NaN);
  if (!Number.isInteger(reached) || reached <= offset) throw new CallFailed(0, "the upload address took nothing");
  return reached;
}

function nextSize(size, tookMs) {
  if (tookMs < QUICK_MS) return Math.min(size * 2, CHUNK_MAX);
  return tookMs > SLOW_MS ? Math.max(size / 2, CHUNK_MIN) : size;
}

/** Send the rest of *file* to *url*. *onSent* hears the bytes that have gone, *onRetry* what went wrong meanwhile. */
export async function upload(file, url, { onSent, onRetry, signal }) {
  let size = CHUNK_MIN;
  let failures = 0;
  let offset = null;
  for (;;) {
    try {
      if (offset === null) offset = await offsetAt(url, signal);
      onSent(offset);
      if (offset >= file.size) return;
      const began = performance.now();
      offset = await sendChunk(file, url, offset, size, onSent, signal);
      size = nextSize(size, performance.now() - began);
      failures = 0;
    } catch (problem) {
      failures += 1;
      if (!mayPass(problem) || failures > TRIES_MAX) throw problem;
      size = CHUNK_MIN;
      offset = null;
      onRetry(problem);
      await wait(pause(failures), signal);
    }
  }
}
