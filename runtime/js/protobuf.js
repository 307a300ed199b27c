/**
 * Walk protobuf messages, which ONNX files are made of: enough to spare a protobuf library.
 *
 * See https://protobuf.dev/programming-guides/encoding for the encoding.
 */

/**
 * [number, start of the field, start of its body, end] for each field of a message; RangeError if it is none.
 * @param {Uint8Array} bytes
 */
export function* fields(bytes) {
  let position = 0;
  while (position < bytes.length) {
    const start = position;
    let tag, body;
    [tag, body] = varint(bytes, position);
    const kind = tag % 8;
    if (kind === 0) position = varint(bytes, body)[1];
    else if (kind === 1) position = body + 8;
    else if (kind === 5) position = body + 4;
    else if (kind === 2) {
      let length;
      [length, body] = varint(bytes, body);
      position = body + length;
    } else throw new RangeError("not a protobuf message");
    if (position > bytes.length || tag < 8) throw new RangeError("not a protobuf message");
    yield [Math.floor(tag / 8), start, body, position];
  }
}

/** A varint as a number: those beyond 2^53 lose digits, which no length or field number has. */
function varint(bytes, position) {
  let value = 0;
  for (let scale = 1; scale < 2 ** 70; scale *= 128) {
    if (position >= bytes.length) break;
    const byte = bytes[position++];
    value += (byte & 127) * scale;
    if (byte < 128) return [value, position];
  }
  throw new RangeError("not a protobuf message");
}
