/** Every error that murho raises on purpose; the names are Python's. */

/** Root of murho's errors. */
export class MurhoError extends Error {
  name = "MurhoError";
}

/** The file is not a murho artifact, is damaged, or needs a newer murho. */
export class ArtifactError extends MurhoError {
  name = "ArtifactError";
}

/** An argument has the wrong shape, type or value. */
export class InputError extends MurhoError {
  name = "InputError";
}
