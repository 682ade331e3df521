// Files from a person's hand: chosen by key or mouse, or dropped on the place for them.

/** Tell *onFiles* what is chosen in *input*, or dropped on *drop*: always through the input, so that both look alike. */
export function takeFiles(drop, input, onFiles) {
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    const dropped = event.dataTransfer.files;
    if (!dropped.length) return;
    if (input.multiple || dropped.length === 1) input.files = dropped;
    else {
      const first = new DataTransfer();
      first.items.add(dropped[0]);
      input.files = first.files;
    }
    onFiles([...input.files]);
  });
  // A file that misses the target would otherwise replace the page.
  for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
  input.addEventListener("change", () => onFiles([...input.files]));
}

// What people call video and browsers do not.
const ENDINGS = /\.(3gp|avi|flv|gxf|lxf|m2ts|m4v|mkv|mov|mp4|mpe?g|mts|mxf|ogv|ts|webm|wmv)$/i;

/** A sentence about why *file* cannot be sent, empty when it can. */
export function faultOf(file, most, size) {
  if (!file.size) return "The file is empty.";
  if (file.size > most) return `The file has ${size(file.size)}; at most ${size(most)} are taken.`;
  if (!file.type.startsWith("video/") && !ENDINGS.test(file.name)) return "The file does not look like a video.";
  return "";
}
