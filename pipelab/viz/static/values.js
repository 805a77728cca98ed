// Values as people read them, of one micro-batch.

/** A value: its number, name, shape and dtype as text, and bytes, for so many rows; null for a list of tensors. */
export function tensorOf(model, value, rows) {
  if (model.program.kindOf(value) === null) return null;
  const { name, shape, dtype, bytes } = model.tensor(value, rows);
  return { value, name, shape: `${shape.join("×") || "scalar"} ${dtype}`, bytes };
}

/** "h.2: add_7 (1×128×768 float32)". */
export const tensorWords = ({ name, shape }) => (shape ? `${name} (${shape})` : name);

/** What to call a value read far away: "mask", "rotary_emb" after the module that makes it, its block, an input's name. */
export function briefName({ program, data }, { value, name, shape }) {
  if (value < 0) return name;
  if (shape.endsWith(" bool")) return "mask";
  const [label, , , block] = data.blocks[program.blockOf[value]];
  if (block >= 0) return label;
  const { path } = program.opPiece(value);
  return path === data.model ? name.slice(name.lastIndexOf(": ") + 2) : path.slice(path.lastIndexOf(".") + 1);
}
