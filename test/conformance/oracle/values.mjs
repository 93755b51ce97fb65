// The values that rules and contexts are made of: few, so that they meet, and
// among them those at which evaluators go wrong.

export const strings = [
  'pro', 'free', 'gold', 'DE', 'US', 'abc', 'abcdef', 'ab', 'b', 'alice@example.com', 'bob@example.org', '@example.com',
  '', ' ', '0', '1', '5', '10', ' 5 ', '5.0', '1e3', '0x10', '-1', '+5', '.5', 'true', 'false', 'null', 'NaN', 'Infinity',
  'a.b', 'a"b', "it's", 'back\\slash', 'line\nbreak', 'Zoë', 'ZOË', 'größe', '日本語', 'x😀y', '\u00a05', 'ｚ', '😀', 'on', 'off',
]

export const names = ['pro', 'free', 'gold', 'DE', 'US', 'abc', 'alice@example.com', 'bob@example.org', 'Zoë', '5', '10', 'ｚ', '😀', '']

export const versions = [
  '1.2.3', '1.2.4', '1.10.0', '2.0.0', 'v2.0.0', 'V1.2', '1', '1.2', '0.2.0', '2.0.0-alpha', '2.0.0-alpha.1', '2.0.0-alpha.beta',
  '2.0.0-rc.10', '2.0.0-rc.9', '1.2.3+build', '1.2.3+other', '2.0.0.0', 'not-a-version', '01.2.3', '1.2.', '', '1.2-alpha',
  ' 1.2.3', '1.2.3-', '1.2.3-01', '1.2.3-0a', 'vv1.2.3', '9007199254740991.0.0', '9007199254740993.0.0', '-1.0.0',
]

export const integers = [0, 1, -1, 2, 3, 5, 7, 10, 18, 42, 100, -7, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 53 - 1, -(2 ** 53 - 1)]
export const small = [0, 1, 2, 3, 4, 5, 7, 10, -1, -2, -3]
export const fractions = [0.5, -0.5, 0.1, 0.2, 1.5, 2.5, -2.5, 3.14, 1e-6, 1e-7, 123456.789, 5e-324]
// Only in contexts: a definition holds no integer that is not safe, and no -0.
export const wild = [1e21, -1e21, 1e300, 1.7976931348623157e308, 2 ** 53, 2 ** 63, -(2 ** 63), -0]

export const operators = ['=', '!=', '<', '<=', '>', '>=', '^', '~']

export const number = (random) => (random.chance(0.7) ? random.pick(random.chance(0.6) ? small : integers) : random.pick(fractions))

// anything returns a JSON value of any type, nested to depth.
export function anything(random, depth = 2) {
  switch (random.weighted({ text: 5, number: 5, bool: 2, nil: 2, list: depth > 0 ? 2 : 0.4, object: depth > 0 ? 1 : 0.2 })) {
    case 'text':
      return random.pick(strings)
    case 'number':
      return number(random)
    case 'bool':
      return random.chance(0.5)
    case 'nil':
      return null
    case 'list':
      return depth > 0 ? random.some(0, 3, () => anything(random, depth - 1)) : []
    default:
      return depth > 0 ? Object.fromEntries(random.some(0, 2, () => [random.pick(['a', 'b', 'name']), anything(random, depth - 1)])) : {}
  }
}

// The attributes that contexts have, by the type that they have when all is well.
export const attributes = {
  string: ['email', 'country', 'tier', 'name', 'user.name', 'user.address.city', 'words.0', 'targetingKey'],
  number: ['age', 'score', 'count', 'user.age', 'numbers.1', '$flagd.timestamp'],
  bool: ['beta', 'admin', 'user.vip'],
  version: ['version', 'app.version'],
  strings: ['words', 'tags', 'none'],
  numbers: ['numbers', 'none'],
  objects: ['items'],
  any: [
    'mixed', 'nested', 'nothing', 'absent', 'user', 'user.address', 'user.absent.deep', 'emptyText', 'zero', 'no', 'none', 'hollow', 'größe',
    '', '$flagd', '$flagd.flagKey', 'age.x', 'nothing.x', 'mixed.0', 'mixed.9', 'a.b', 'numbers.x', 'items.0.price', 'emptyText.x',
  ],
}

const item = (random) => {
  const made = { name: random.pick(names), price: number(random), tags: random.some(0, 2, () => random.pick(names)) }
  if (random.chance(0.2)) delete made[random.pick(['name', 'price'])]
  return made
}

// context returns what a flag is evaluated for.
export function context(random) {
  const made = {
    targetingKey: random.chance(0.9) ? `user-${random.below(1000)}` : random.pick(['', 'Zoë', '日本語', 'x😀y', 'a', 5, true]),
    email: random.pick(strings),
    country: random.pick(names),
    tier: random.pick(names),
    name: random.pick(strings),
    age: number(random),
    score: random.chance(0.9) ? number(random) : random.pick(wild),
    count: random.pick(small),
    beta: random.chance(0.5),
    admin: random.chance(0.5),
    version: random.pick(versions),
    app: { version: random.chance(0.8) ? random.pick(versions) : random.pick([1, 2, 1.2, 1.5, 10]) },
    words: random.some(1, 4, () => random.pick(names)),
    tags: random.some(0, 3, () => random.pick(strings)),
    numbers: random.some(0, 4, () => number(random)),
    items: random.some(0, 3, () => item(random)),
    user: { name: random.pick(names), age: number(random), vip: random.chance(0.5), address: { city: random.pick(names), zip: null } },
    mixed: random.some(0, 4, () => anything(random, 1)),
    nested: anything(random, 3),
    nothing: null,
    emptyText: '',
    zero: 0,
    no: false,
    none: [],
    hollow: {},
    größe: random.pick(strings),
  }
  // Attributes are absent, null or of another type than expected now and then.
  for (const key of Object.keys(made)) {
    if (random.chance(0.05)) delete made[key]
    else if (random.chance(0.04)) made[key] = key === 'targetingKey' ? null : anything(random, 1)
  }
  if (random.chance(0.02)) made.$flagd = { flagKey: 'forged', timestamp: 1 }
  return made
}
