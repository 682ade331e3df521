// Down the list of what can play the clip: the browser itself, hls.js where this installation has it, the provider's
// player in a frame. At its end the page says that nothing can.

const HLS = "application/vnd.apple.mpegurl";
let stream = null; // of hls.js, while it plays

function tellUnplayable(video) {
  video.hidden = true;
  const note = document.querySelector("[data-unplayable]");
  if (note) note.hidden = false;
}

function showFrame(video) {
  if (!video.dataset.iframe) return tellUnplayable(video);
  const frame = document.createElement("iframe");
  frame.className = "player";
  frame.src = video.dataset.iframe;
  frame.title = "Video";
  frame.allow = "accelerometer; gyroscope; autoplay; encrypted-media; picture-in-picture";
  frame.allowFullscreen = true;
  video.replaceWith(frame);
}

async function playThroughModule(video) {
  const { Hls } = await import(video.dataset.module);
  if (!Hls.isSupported() || !video.isConnected) throw new Error("no media source here");
  // Without a worker: the policy of the page lets in none that is made of text.
  stream = new Hls({ enableWorker: false });
  stream.on(Hls.Events.ERROR, (_, { fatal }) => {
    if (!fatal) return;
    stop();
    showFrame(video);
  });
  video.removeAttribute("src");
  stream.loadSource(video.dataset.hls);
  stream.attachMedia(video);
}

function stop() {
  stream?.destroy();
  stream = null;
}

function playOtherwise(video) {
  if (!video.dataset.module) return showFrame(video);
  playThroughModule(video).catch(() => {
    stop();
    showFrame(video);
  });
}

function when(video, fails) {
  if (video.error) fails(video);
  else video.addEventListener("error", () => fails(video), { once: true });
}

/** Make the best of the player that stands in the page now; again after it was rendered anew. */
export function showPlayer() {
  // What was taken out of the page loads nothing more.
  if (stream && !stream.media?.isConnected) stop();
  const video = document.querySelector("video[data-hls]:not([data-seen]), video[data-file]:not([data-seen])");
  if (!video) return;
  stop();
  video.dataset.seen = "";
  if ("file" in video.dataset) when(video, tellUnplayable);
  else if (video.canPlayType(HLS)) when(video, playOtherwise);
  else playOtherwise(video);
}

/** Whether somebody watches: then the player is left alone. */
export function isWatched() {
  const video = document.querySelector("[data-region=player] video");
  return Boolean(video && !video.paused && !video.ended);
}
