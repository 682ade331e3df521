// The whole of hls.js: its light build plays manifests with a separate audio group without sound and without a word.
export { default, default as Hls } from "hls.js";
