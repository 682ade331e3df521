// The client of resumable uploads (https://tus.io), loaded by the pages that send files.
export { Upload } from "tus-js-client";
