/** A price as the vendor writes it, `0.0060000000`, in millionths of the unit, rounded. @throws Error for what is no number. */
export function microsOf(text: string): bigint {
  const parts = /^(\d+)(?:\.(\d+))?$/.exec(text)
  if (parts === null) throw new Error(`"${text}" is no price`)
  const [, whole = '0', fraction = ''] = parts
  const digits = fraction.padEnd(7, '0')
  return BigInt(whole) * 1_000_000n + BigInt(digits.slice(0, 6)) + (Number(digits[6]) >= 5 ? 1n : 0n)
}
