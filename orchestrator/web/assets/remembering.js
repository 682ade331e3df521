// Uploads that were begun: kept by this browser until they are done, so that a closed page or a crash costs nothing.

const PREFIX = "upload:";

/** Under what *file* is known here: another file of the same name has another size or time. */
export const keyOf = (file) => `${PREFIX}${file.name}:${file.size}:${file.lastModified}`;

function read(key) {
  try {
    const kept = JSON.parse(localStorage.getItem(key));
    if (kept?.upload_url && new Date(kept.upload_expires_at) > new Date()) return kept;
    localStorage.removeItem(key);
  } catch {
    // Private windows have no storage: then a closed page means a new start.
  }
  return null;
}

/** The clip that was begun with *file*, as long as its address is good. */
export const recall = (file) => read(keyOf(file));

export function keep(file, clip) {
  const { id, upload_url, upload_expires_at, protocol } = clip;
  try {
    localStorage.setItem(keyOf(file), JSON.stringify({ id, upload_url, upload_expires_at, protocol, name: file.name, bytes: file.size }));
  } catch {
    // See above.
  }
}

export function forget(key) {
  try {
    localStorage.removeItem(key);
  } catch {
    // See above.
  }
}

/** What was begun and is not being sent by any open page: [key, clip]. */
export async function unfinished() {
  let keys = [];
  try {
    keys = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
  } catch {
    return [];
  }
  const locks = await navigator.locks?.query().catch(() => null);
  const held = new Set(locks?.held.map((lock) => lock.name));
  return keys.filter((key) => !held.has(key)).map((key) => [key, read(key)]).filter(([, clip]) => clip);
}

/** Do *work* as the only page that sends this file; throws when another one does. Without locks everybody may. */
export function alone(key, work) {
  if (!navigator.locks) return work();
  return navigator.locks.request(key, { ifAvailable: true }, (lock) => {
    if (!lock) throw new Error("another window of this browser is sending this file");
    return work();
  });
}
