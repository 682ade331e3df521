// Bytes and spans of time in the units people use for them.

export function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB"];
  let place = 0;
  for (; bytes >= 1000 && place < 3; place += 1) bytes /= 1000;
  return `${bytes.toFixed(place ? 1 : 0)} ${units[place]}`;
}

/** About how long: no finer than anybody plans by. */
export function span(seconds) {
  if (seconds < 10) return "a few seconds";
  if (seconds < 90) return `${Math.ceil(seconds / 10) * 10} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
