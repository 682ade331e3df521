// Browsers that do not play HLS themselves get the provider's own player in its place.

export function showPlayer() {
  const video = document.querySelector("video[data-iframe]");
  if (!video?.dataset.iframe || video.canPlayType("application/vnd.apple.mpegurl")) return;
  const frame = document.createElement("iframe");
  frame.className = "player";
  frame.src = video.dataset.iframe;
  frame.title = "Video";
  frame.allow = "accelerometer; gyroscope; autoplay; encrypted-media; picture-in-picture";
  frame.allowFullscreen = true;
  video.replaceWith(frame);
}
