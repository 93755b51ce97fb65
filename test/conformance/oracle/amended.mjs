// The two operators of flagd that Holdfast has by its own rules.

const pattern = /^[vV]?(0|[1-9][0-9]*)(?:\.(0|[1-9][0-9]*)(?:\.(0|[1-9][0-9]*)(?:-([0-9A-Za-z.-]+))?(?:\+([0-9A-Za-z.-]+))?)?)?$/

// parse reads a version: texts and numbers only, with nothing around them, of
// numbers of any length.
function parse(value) {
  if (typeof value !== 'string' && typeof value !== 'number') return null
  const match = pattern.exec(String(value))
  // Unlike elsewhere, $ would match before a final line break only with a flag.
  if (!match) return null
  const [, major, minor = '0', patch = '0', before, build] = match
  const identifiers = before === undefined ? [] : before.split('.')
  if (identifiers.some((id) => id === '' || /^0\d+$/.test(id))) return null
  if (build !== undefined && build.split('.').includes('')) return null
  return { numbers: [major, minor, patch].map(BigInt), identifiers }
}

const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0)

function compareIdentifiers(a, b) {
  if (a.length === 0 || b.length === 0) return order(b.length, a.length)
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const [x, y] = [a[i], b[i]]
    const [xIsNumber, yIsNumber] = [/^\d+$/.test(x), /^\d+$/.test(y)]
    if (xIsNumber !== yIsNumber) return xIsNumber ? -1 : 1
    const different = xIsNumber ? order(BigInt(x), BigInt(y)) : order(x, y)
    if (different) return different
  }
  return order(a.length, b.length)
}

export function version(args) {
  if (args.length !== 3) return null
  const [a, b] = [parse(args[0]), parse(args[2])]
  if (!a || !b) return null
  const [major, minor] = [a.numbers[0] === b.numbers[0], a.numbers[1] === b.numbers[1]]
  const first = a.numbers.findIndex((n, i) => n !== b.numbers[i])
  const compared = first >= 0 ? order(a.numbers[first], b.numbers[first]) : compareIdentifiers(a.identifiers, b.identifiers)
  switch (args[1]) {
    case '=':
      return compared === 0
    case '!=':
      return compared !== 0
    case '<':
      return compared < 0
    case '<=':
      return compared <= 0
    case '>':
      return compared > 0
    case '>=':
      return compared >= 0
    case '^':
      return major
    case '~':
      return major && minor
    default:
      return null
  }
}

const largest = 2147483647

// fractional hashes the UTF-8 of the bucketing value.
export function fractional(args, flagKey, targetingKey) {
  let by = args[0]
  let buckets = args.slice(1)
  if (typeof by !== 'string') {
    if (by !== null || buckets.length === 0) buckets = args
    if (typeof targetingKey !== 'string' || targetingKey === '') return null
    by = flagKey + targetingKey
  }
  let total = 0
  const shares = []
  for (const bucket of buckets) {
    if (!Array.isArray(bucket) || bucket.length < 1 || bucket.length > 2) return null
    const [variant, weight = 1] = bucket
    if (variant !== null && typeof variant === 'object') return null
    if (!Number.isInteger(weight)) return null
    total += Math.max(0, weight)
    shares.push({ variant, upTo: total })
  }
  if (total > largest) return null
  const at = (BigInt(murmur3(Buffer.from(by))) * BigInt(total)) >> 32n
  return shares.find(({ upTo }) => BigInt(upTo) > at)?.variant ?? null
}

const rotate = (x, by) => (x << by) | (x >>> (32 - by))
const scramble = (k) => Math.imul(rotate(Math.imul(k, 0xcc9e2d51), 15), 0x1b873593)

// murmur3 is MurmurHash3_x86_32 with seed 0.
export function murmur3(bytes) {
  let h = 0
  const whole = bytes.length & ~3
  for (let i = 0; i < whole; i += 4) h = (Math.imul(rotate(h ^ scramble(bytes.readInt32LE(i)), 13), 5) + 0xe6546b64) | 0
  let tail = 0
  for (let i = bytes.length - 1; i >= whole; i--) tail = (tail << 8) | bytes[i]
  h ^= scramble(tail) ^ bytes.length
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}
