// Draws whole flags: a definition, and the rule in it.

import { Expressions } from './expressions.mjs'
import { anything, names } from './values.mjs'

// operators is every operator of the targeting language.
export const operators = [
  'var', 'missing', 'missing_some', 'if', '==', '===', '!=', '!==', '>', '>=', '<', '<=', '!', '!!', 'or', 'and', '+', '-', '*', '/', '%',
  'max', 'min', 'map', 'filter', 'reduce', 'all', 'none', 'some', 'merge', 'in', 'cat', 'substr', 'starts_with', 'ends_with', 'sem_ver', 'fractional',
]

const variantValues = {
  boolean: (random, name) => (name === 'true' || name === 'on' ? true : name === 'false' || name === 'off' ? false : random.chance(0.5)),
  string: (random, name) => (random.chance(0.8) ? `value of ${name}` : ''),
  number: (random) => random.pick([0, 1, 5, 2.5, -3, 1e6, 2 ** 53 - 1]),
  object: (random, name) => ({ name, nested: { n: random.pick([0, 1, 2.5]), list: [1, 'a', null] } }),
}

const nameSets = [
  ['on', 'off'],
  ['on', 'off'],
  ['true', 'false'],
  ['a', 'b', 'c'],
  ['pro', 'free', 'gold', 'abc'],
  ['DE', 'US', 'Zoë'],
  ['0', '1', '2', '5', '10'],
  ['null', '', 'a b', 'a"b', '1.5'],
]

// Case is a flag that is being drawn.
export class Case {
  constructor(random, number) {
    this.random = random
    this.key = random.chance(0.9) ? `flag-${number % 97}` : random.pick(['größe', 'a.b', 'F', 'flag with spaces', '日本'])
    this.type = random.weighted({ boolean: 3, string: 4, number: 2, object: 1 })
    this.names = random.pick(nameSets)
    this.variants = {}
    this.evaluators = {}
    for (const name of this.names) this.addVariant(name)
    this.targeting = this.rule()
    this.shape()
  }

  addVariant(name) {
    this.variants[name] = variantValues[this.type](this.random, name)
  }

  // rule draws what decides; probe tells that its result is to become the name of
  // a variant, so that the whole result is compared.
  rule() {
    const { random } = this
    switch (random.weighted({ chain: 30, share: 10, typed: 30, loose: 12, nonsense: 6, none: 5, odd: 4, shared: 4 })) {
      case 'chain':
        return this.chain(new Expressions(random, { wild: 0.02 }))
      case 'share':
        return new Expressions(random, { wild: 0.02 }).fractional(1, this.names)
      case 'typed':
        this.probe = true
        return this.expression(0.01, ['bool', 'number', 'number', 'string', 'string', 'list'])
      case 'loose':
        this.probe = true
        return this.expression(0.3, ['bool', 'number', 'string', 'list', 'any'])
      case 'nonsense':
        this.probe = true
        return this.nonsense()
      case 'odd':
        return this.odd()
      case 'shared':
        return this.shared()
      default:
        return random.pick([undefined, {}, null])
    }
  }

  // expression draws one that is no plain value: as a rule that would be none.
  expression(wild, types) {
    const { random } = this
    const expressions = new Expressions(random, { wild })
    for (;;) {
      const drawn = expressions.of(random.pick(types), random.between(1, 3))
      if (drawn !== null && typeof drawn === 'object' && !Array.isArray(drawn)) return drawn
    }
  }

  // chain is what people write: conditions in turn, each with a variant.
  chain(expressions) {
    const { random } = this
    const operands = []
    for (let i = random.between(1, 3); i > 0; i--) {
      operands.push(expressions.of('bool', random.between(1, 3)), this.result(expressions))
    }
    if (random.chance(0.7)) operands.push(this.result(expressions))
    return { if: operands }
  }

  result(expressions) {
    const { random } = this
    switch (random.weighted({ name: 14, share: 1.5, nil: 1, unknown: 0.5, bool: 0.5, computed: 1, nested: 1 })) {
      case 'share':
        return expressions.fractional(1, this.names)
      case 'nil':
        return null
      case 'unknown':
        return 'no-such-variant'
      case 'bool':
        return random.chance(0.5)
      case 'computed':
        return expressions.string(1)
      case 'nested':
        return { if: [expressions.of('bool', 1), random.pick(this.names), random.pick(this.names)] }
      default:
        return random.pick(this.names)
    }
  }

  // nonsense gives an operator any operands, in any number.
  nonsense() {
    const { random } = this
    const expressions = new Expressions(random, { wild: 0.8 })
    const operator = random.pick(operators)
    if (random.chance(0.15)) return { [operator]: expressions.any(1) }
    return { [operator]: random.some(0, 4, () => expressions.any(random.between(0, 1))) }
  }

  // odd is what is no proper rule at all.
  odd() {
    const { random } = this
    const rule = new Expressions(random).of('string', 1)
    return random.pick([
      { inn: ['a', ['a']] },
      { $ref: 'nowhere' },
      { if: [{ var: 'beta' }, { $ref: 'nowhere' }, 'on'] },
      { and: [{ var: 'beta' }, { starts: ['a'] }] },
      { '==': [1, 1], '!=': [1, 1] },
      { if: [true, 'on', 'off'], cat: ['a'] },
      random.pick(this.names),
      [random.pick(this.names)],
      [rule],
      { if: [rule] },
      { if: [] },
      { var: 'targetingKey' },
      { merge: [rule] },
      { fractionalEvaluation: [['on', 1]] },
      { '': ['a'] },
    ])
  }

  // shared puts a part of the rule among the shared evaluators of the set.
  shared() {
    const { random } = this
    const expressions = new Expressions(random, { wild: 0.02 })
    const name = random.pick(['isStaff', 'premium', 'a b', 'größe'])
    this.evaluators[name] = expressions.of('bool', 2)
    const ref = { $ref: name }
    return random.pick([
      { if: [ref, random.pick(this.names), random.pick(this.names)] },
      { if: [{ and: [ref, expressions.of('bool', 1)] }, random.pick(this.names)] },
      { if: [{ '!': [ref] }, random.pick(this.names), { if: [ref, random.pick(this.names), null] }] },
    ])
  }

  shape() {
    const { random } = this
    this.state = random.chance(0.04) ? 'DISABLED' : 'ENABLED'
    this.defaultVariant = random.chance(0.8) ? random.pick(this.names) : random.pick([undefined, null, ''])
    this.metadata = random.chance(0.1) ? { owner: random.pick(names), level: anything(random, 0) ?? 1, on: true } : undefined
    if (this.metadata && typeof this.metadata.level === 'object') this.metadata.level = 1
  }

  // definition returns the flag; with inline, what $ref refers to stands in its
  // place.
  definition(inline) {
    const made = { state: this.state, variants: this.variants }
    if (this.defaultVariant !== undefined) made.defaultVariant = this.defaultVariant
    if (this.targeting !== undefined) made.targeting = inline ? this.inlined(this.targeting) : this.targeting
    if (this.metadata) made.metadata = this.metadata
    return made
  }

  inlined(rule) {
    if (Array.isArray(rule)) return rule.map((element) => this.inlined(element))
    if (rule === null || typeof rule !== 'object') return rule
    const keys = Object.keys(rule)
    if (keys.length === 1 && keys[0] === '$ref' && rule.$ref in this.evaluators) return this.evaluators[rule.$ref]
    return Object.fromEntries(keys.map((key) => [key, this.inlined(rule[key])]))
  }

  set() {
    return { flags: { [this.key]: this.definition(false) }, $evaluators: this.evaluators }
  }
}
