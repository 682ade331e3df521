// Resumable upload (tus 1.0.0) to an address that exists already. The other end knows how far it is; after every failure it
// is asked, and the file goes on from there. tus-js-client does the work; it is loaded when the first file goes.

import { failure, mayPass, pause, STALLED_MS } from "./sending.js";

const MIB = 1024 * 1024;
// The provider takes 5 to 200 MiB in multiples of 256 KiB; doubling from 5 keeps to that. 40 MiB is a few seconds
// of a good line, and what a failure costs at most.
const CHUNK_MIN = 5 * MIB;
const CHUNK_MAX = 40 * MIB;
const QUICK_MS = 3000;
const SLOW_MS = 20_000;
// Failures in a row without a byte of progress; with the pauses about two minutes.
const TRIES_MAX = 8;

function nextSize(now, tookMs) {
  if (tookMs < QUICK_MS) return Math.min(now * 2, CHUNK_MAX);
  return tookMs > SLOW_MS ? Math.max(now / 2, CHUNK_MIN) : now;
}

/** Its own words carry the address, which nobody is to read. */
const translated = (problem) => failure(problem.originalResponse?.getStatus() ?? 0);

/** Send the rest of *file* to *url*. *onSent* hears the bytes that have gone, *onRetry* what went wrong meanwhile. */
export async function sendResumable(file, url, { onSent, onRetry, signal }) {
  const { Upload } = await import("./tus.js");
  signal?.throwIfAborted();
  await new Promise((resolve, reject) => {
    let began = performance.now();
    let watching = 0;
    let stalls = 0;
    const upload = new Upload(file, {
      uploadUrl: url,
      chunkSize: CHUNK_MIN,
      retryDelays: Array.from({ length: TRIES_MAX }, (_, n) => pause(n + 1)),
      // What is kept for later is kept by the page, with the clip it belongs to.
      storeFingerprintForResuming: false,
      onProgress: (bytes) => { watch(); onSent(bytes); },
      onChunkComplete: () => {
        const now = performance.now();
        upload.options.chunkSize = nextSize(upload.options.chunkSize, now - began);
        began = now;
        stalls = 0;
      },
      onShouldRetry: (problem) => {
        const known = translated(problem);
        if (!mayPass(known)) return false;
        upload.options.chunkSize = CHUNK_MIN;
        began = performance.now();
        onRetry(known);
        watch();
        return true;
      },
      onSuccess: () => end(resolve),
      onError: (problem) => end(reject, translated(problem)),
    });
    const end = (settle, value) => {
      clearTimeout(watching);
      signal?.removeEventListener("abort", stop);
      settle(value);
    };
    const stop = () => { upload.abort(); end(reject, signal.reason); };
    // A connection that stands still tells nobody: it is given up, and the other end asked how far it is.
    async function onStall() {
      await upload.abort();
      if (signal?.aborted) return;
      stalls += 1;
      if (stalls > TRIES_MAX) return end(reject, failure(0));
      onRetry(failure(0));
      watch();
      upload.start();
    }
    function watch() {
      clearTimeout(watching);
      watching = setTimeout(onStall, STALLED_MS);
    }
    signal?.addEventListener("abort", stop);
    watch();
    upload.start();
  });
}
