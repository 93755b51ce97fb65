// Draws expressions of the targeting language, mostly well typed: those make
// flags match, and only a match shows what an expression was worth.

import { anything, attributes, fractions, integers, names, number, operators, small, strings, versions } from './values.mjs'

const comparisons = ['==', '!=', '<', '<=', '>', '>=']
const strict = ['===', '!==']

// Expressions draws from one source of randomness. wild is the probability with
// which an operand is of any type instead of the right one.
export class Expressions {
  constructor(random, { wild = 0.04 } = {}) {
    this.random = random
    this.wild = wild
    this.scopes = []
  }

  // of returns an expression of the type; depth is how far it may nest.
  of(type, depth) {
    if (this.random.chance(this.wild)) return this.any(depth)
    switch (type) {
      case 'bool':
        return this.bool(depth)
      case 'number':
        return this.number(depth)
      case 'string':
        return this.string(depth)
      case 'list':
        return this.list(depth)
      default:
        return this.any(depth)
    }
  }

  any(depth) {
    const { random } = this
    const type = random.weighted({ bool: 2, number: 3, string: 3, list: 2, value: 3, variable: 3 })
    if (type === 'value') return this.literal(anything(random, 2))
    if (type === 'variable') return this.variable('any')
    return this[type](depth)
  }

  // literal returns a value as it may stand in a rule, where an object would be
  // an operator.
  literal(value) {
    if (Array.isArray(value)) return value.map((element) => this.literal(element))
    if (value !== null && typeof value === 'object') return {}
    return value
  }

  // variable returns a reference to an attribute of the type, or to the element
  // of a list inside of one of its operators.
  variable(type) {
    const { random } = this
    const scope = this.scopes[this.scopes.length - 1]
    let path
    if (scope === 'reduce') path = random.pick(['current', 'accumulator', 'current', 'accumulator', 'absent'])
    else if (scope === 'object') path = random.pick({ string: ['name'], number: ['price'], list: ['tags'] }[type] ?? ['', 'name', 'price', 'tags.0', 'absent'])
    else if (scope !== undefined && random.chance(0.95)) path = ''
    else path = random.pick(attributes[type] ?? attributes.any)
    if (random.chance(0.12)) return { var: [path, this.literal(anything(random, 1))] }
    if (random.chance(0.15)) return { var: [path] }
    if (random.chance(0.01)) return { var: { cat: [path.slice(0, 2), path.slice(2)] } }
    return { var: path }
  }

  bool(depth) {
    const { random } = this
    if (depth <= 0) return random.chance(0.6) ? this.variable('bool') : { '==': [this.variable('string'), random.pick(names)] }
    const d = depth - 1
    switch (random.weighted({ compare: 9, between: 2, same: 2, not: 2, logic: 4, in: 4, affix: 3, version: 4, quantify: 3, iff: 1, variable: 1, truth: 1, missing: 1, share: 0.5 })) {
      case 'compare':
        return this.comparison(d)
      case 'between':
        return { [random.pick(['<', '<='])]: [this.of('number', 0), this.of('number', d), this.of('number', 0)] }
      case 'same': {
        if (random.chance(0.1)) {
          const operand = this.variable(random.pick(['strings', 'objects', 'any']))
          return { [random.pick(strict)]: [operand, operand] }
        }
        const type = random.pick(['string', 'number', 'bool', 'any'])
        return { [random.pick(strict)]: [this.of(type, d), this.of(type, 0)] }
      }
      case 'not': {
        const operand = this.of(random.chance(0.6) ? 'bool' : 'any', d)
        return { '!': random.chance(0.7) ? [operand] : operand }
      }
      case 'truth': {
        const operand = this.of('any', d)
        return { '!!': random.chance(0.7) ? [operand] : operand }
      }
      case 'logic':
        return { [random.pick(['and', 'or'])]: random.some(1, 3, () => this.of('bool', d)) }
      case 'in':
        return this.membership(d)
      case 'affix':
        return { [random.pick(['starts_with', 'ends_with'])]: [this.of('string', d), random.pick(['a', 'ab', 'b', '@example.com', 'com', '', 'Z', 'é', 'ë', '😀'])] }
      case 'version':
        return { sem_ver: [this.version(), random.pick(operators), random.pick(versions)] }
      case 'quantify':
        return this.quantifier(d)
      case 'iff':
        return { if: [this.of('bool', d), this.of('bool', d), this.of('bool', 0)] }
      case 'missing':
        return { '!': [this.missing(d)] }
      case 'share':
        return this.fractional(d, [true, false])
      default:
        return this.variable('bool')
    }
  }

  comparison(depth) {
    const { random } = this
    const operator = random.pick(comparisons)
    const type = random.weighted({ number: 5, string: 4, bool: 0.5, any: 1 })
    let operands = [this.of(type, depth), this.of(type, random.chance(0.7) ? 0 : depth)]
    if (random.chance(0.15)) operands = operands.reverse()
    return { [operator]: operands }
  }

  membership(depth) {
    const { random } = this
    if (random.chance(0.03)) return { in: [this.variable('any'), random.pick(['', 'null', 'abc'])] }
    if (random.chance(0.5)) return { in: [this.of('string', depth), random.some(0, 4, () => random.pick(names))] }
    if (random.chance(0.4)) return { in: [this.of('string', 0), this.of('string', depth)] }
    if (random.chance(0.5)) return { in: [this.of('number', 0), this.of('list', depth)] }
    return { in: [this.of('string', 0), this.of('list', depth)] }
  }

  version() {
    const { random } = this
    return random.chance(0.8) ? this.variable('version') : random.pick([...versions, 1, 2, 1.2, 10, 1.5])
  }

  // quantifier is all, some or none of a list.
  quantifier(depth) {
    return { [this.random.pick(['all', 'some', 'none'])]: this.iteration('bool', depth) }
  }

  // iteration returns a list and an expression over its elements.
  iteration(type, depth) {
    const { random } = this
    const of = random.weighted({ strings: 3, numbers: 4, objects: 2, list: 1 })
    const source = random.chance(this.wild) ? this.any(depth) : of === 'list' ? this.list(depth) : this.variable(of)
    this.scopes.push(of === 'objects' ? 'object' : of)
    const body = random.chance(0.6) ? this.simple(type, of) : this.of(type, depth)
    this.scopes.pop()
    return [source, body]
  }

  // simple returns an expression of the element itself.
  simple(type, of) {
    const { random } = this
    const element = of === 'objects' ? { var: of === 'objects' && type === 'string' ? 'name' : 'price' } : { var: '' }
    if (type === 'number') return { [random.pick(['+', '*', '-'])]: [element, random.pick(small)] }
    if (type === 'string') return { cat: [element, random.pick(['', '-', 'x'])] }
    return { [random.pick(comparisons)]: [element, of === 'strings' ? random.pick(names) : random.pick(small)] }
  }

  number(depth) {
    const { random } = this
    if (depth <= 0) return random.chance(0.55) ? this.variable('number') : random.chance(0.8) ? random.pick(small) : random.pick([...fractions, ...integers, '5', '1e3', ' 2 ', '', true, null])
    const d = depth - 1
    switch (random.weighted({ arithmetic: 7, unary: 1, list: 1, extreme: 3, reduce: 2, iff: 1, variable: 2 })) {
      case 'arithmetic': {
        const operator = random.weighted({ '+': 4, '-': 3, '*': 3, '/': 1.5, '%': 2 })
        const many = operator === '-' || operator === '%' ? 2 : random.between(1, 3)
        return { [operator]: Array.from({ length: Math.max(many, operator === '/' ? 2 : 1) }, (_, i) => this.of('number', i === 0 ? d : 0)) }
      }
      case 'unary': {
        const operand = this.of(random.chance(0.5) ? 'number' : 'string', d)
        return { [random.pick(['+', '-', '+', '/'])]: [operand] }
      }
      case 'list':
        return { [random.pick(['+', '*', '-'])]: this.variable('numbers') }
      case 'extreme':
        return { [random.pick(['max', 'min'])]: random.chance(0.2) ? this.variable('numbers') : random.some(1, 3, () => this.strictNumber(d)) }
      case 'reduce':
        return this.reduction(d)
      case 'iff':
        return { if: [this.of('bool', d), this.of('number', d), this.of('number', 0)] }
      default:
        return this.variable('number')
    }
  }

  // strictNumber is a number that needs no conversion.
  strictNumber(depth) {
    const { random } = this
    if (random.chance(this.wild)) return this.any(depth)
    return random.chance(0.6) ? this.variable('number') : number(random)
  }

  reduction(depth) {
    const { random } = this
    const source = random.chance(0.8) ? this.variable(random.pick(['numbers', 'strings'])) : this.of('list', depth)
    this.scopes.push('reduce')
    const current = { var: 'current' }
    const accumulator = { var: 'accumulator' }
    const body = random.chance(0.7)
      ? { [random.weighted({ '+': 4, '*': 2, max: 2, min: 1, cat: 2, '-': 1 })]: random.shuffled([current, accumulator]) }
      : random.chance(0.5)
        ? { if: [{ '>': [current, accumulator] }, current, accumulator] }
        : this.of('number', depth)
    this.scopes.pop()
    return random.chance(0.06) ? { reduce: [source, body] } : { reduce: [source, body, random.pick([0, 1, '', 10, null, 'x'])] }
  }

  string(depth) {
    const { random } = this
    if (depth <= 0) return random.chance(0.6) ? this.variable('string') : random.pick(strings)
    const d = depth - 1
    switch (random.weighted({ cat: 4, substr: 4, iff: 2, variable: 3, either: 1, share: 1, text: 1 })) {
      case 'cat':
        return { cat: random.some(1, 3, () => (random.chance(0.7) ? this.of('string', d) : this.of(random.pick(['number', 'bool', 'any']), 0))) }
      case 'substr': {
        const operands = [this.of('string', d), random.chance(0.9) ? random.between(-4, 6) : this.of('number', 0)]
        if (random.chance(0.6)) operands.push(random.chance(0.9) ? random.between(-3, 4) : this.of('number', 0))
        return { substr: operands }
      }
      case 'iff':
        return { if: [this.of('bool', d), this.of('string', d), this.of('string', 0)] }
      case 'either':
        return { [random.pick(['or', 'and'])]: [this.of('string', d), this.of('string', 0)] }
      case 'share':
        return this.fractional(d, names)
      case 'text':
        return random.pick(strings)
      default:
        return this.variable('string')
    }
  }

  list(depth) {
    const { random } = this
    const d = depth - 1
    const kinds = { variable: 4, literal: 2, ...(depth > 0 ? { map: 3, filter: 3, merge: 3, missing: 2, missingSome: 1, collect: 0.5 } : {}) }
    switch (random.weighted(kinds)) {
      case 'map':
        return { map: this.iteration(random.pick(['number', 'string', 'bool']), d) }
      case 'filter':
        return { filter: this.iteration('bool', d) }
      case 'merge':
        return { merge: random.some(1, 3, () => (random.chance(0.6) ? this.of('list', d) : this.of('any', 0))) }
      case 'missing':
        return this.missing(d)
      case 'missingSome':
        return { missing_some: [random.between(0, 2), random.some(1, 3, () => this.path())] }
      case 'collect': {
        const source = this.variable('numbers')
        return { reduce: [source, { merge: [{ var: 'accumulator' }, { var: 'current' }] }, []] }
      }
      case 'literal':
        return random.some(0, 3, () => (random.chance(0.8) ? this.literal(anything(random, 0)) : this.of('any', 0)))
      default:
        return this.variable(random.pick(['strings', 'numbers', 'objects']))
    }
  }

  path() {
    const { random } = this
    return random.pick(attributes[random.pick(['string', 'number', 'bool', 'any', 'any'])])
  }

  missing() {
    const { random } = this
    if (random.chance(0.1)) return { missing: { merge: [this.path(), [this.path()]] } }
    if (random.chance(0.1)) return { missing: this.path() }
    return { missing: random.some(0, 3, () => this.path()) }
  }

  // fractional shares the results out over some buckets.
  fractional(depth, results) {
    const { random } = this
    const bucket = () => {
      const chosen = random.pick(results)
      const made = [random.chance(0.9) ? chosen : this.of(typeof chosen === 'string' ? 'string' : 'bool', depth)]
      switch (random.weighted({ plain: 5, none: 3, odd: 1.2, computed: 0.8 })) {
        case 'plain':
          made.push(random.pick([0, 1, 5, 10, 25, 50, 50, 100, 100000]))
          break
        case 'odd':
          made.push(random.pick([-1, -50, 0.5, '50', null, true, 2147483647, 2147483648, 1e-7, 4294967296]))
          break
        case 'computed':
          made.push(random.chance(0.5) ? this.variable('number') : { '-': [{ var: '$flagd.timestamp' }, random.pick([1700000000, 1700000500, 1800000000])] })
          break
        default:
      }
      if (random.chance(0.015)) made.push(1)
      return random.chance(0.01) ? [] : made
    }
    const buckets = random.some(1, 4, bucket)
    if (random.chance(0.02)) buckets.push(this.any(0))
    if (random.chance(0.45)) return { fractional: buckets }
    const by = random.weighted({ key: 3, mail: 2, cat: 3, any: 1 })
    if (by === 'key') return { fractional: [{ var: 'targetingKey' }, ...buckets] }
    if (by === 'mail') return { fractional: [{ var: 'email' }, ...buckets] }
    if (by === 'cat') return { fractional: [{ cat: [{ var: '$flagd.flagKey' }, { var: random.pick(['email', 'user.name', 'targetingKey', 'age']) }] }, ...buckets] }
    return { fractional: [this.of('any', depth), ...buckets] }
  }
}
