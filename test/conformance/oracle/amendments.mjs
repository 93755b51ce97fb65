// What Holdfast decides otherwise than flagd-core, as changes to the operators of
// flagd-core's own engine. With them in place the engine has to come to what
// Holdfast comes to; a difference that they do not bring about is a mistake.
//
// Each change has the name of a class, which explained.json and the documentation
// describe, and tells when it made a difference.

import { fractional, version } from './amended.mjs'

export const classes = [
  'code-points', 'compiler', 'hash', 'identity', 'in', 'inside-lists', 'not-finite', 'null-bucketing', 'null-equality', 'operand', 'paths',
  'strict-rules', 'substr', 'targeting-key', 'version-text',
]

const isContainer = (value) => value !== null && typeof value === 'object'

// toNumber is Number(), but lists and objects are no numbers.
export const toNumber = (value) => (isContainer(value) || value === undefined ? NaN : Number(value))

// toText is String(), but null is empty.
export const toText = (value) => (value === null || value === undefined ? '' : String(value))

// walk follows a path into objects by their keys and into lists by index. Texts
// have no parts.
function walk(data, path) {
  for (const key of path.split('.')) {
    if (Array.isArray(data)) {
      if (!/^(0|[1-9]\d{0,8})$/.test(key)) return undefined
    } else if (!isContainer(data) || !Object.hasOwn(data, key)) return undefined
    data = data[key]
  }
  return data
}

// attempt tells what the original operator would have come to.
function attempt(original) {
  try {
    return { value: original() }
  } catch {
    return { failed: true }
  }
}

// same compares results; no rule can tell 0 from -0.
const same = (a, b) => (isContainer(a) && isContainer(b) ? JSON.stringify(a) === JSON.stringify(b) : Object.is(a, b) || a === b)

export class Amendments {
  // because is the classes that made a difference.
  because = new Set()

  constructor(engine, key, root) {
    this.engine = engine
    this.key = key
    this.root = root
    this.original = { ...engine.methods }
    // Without these two the engine evaluates constant parts beforehand, and
    // replaces some combinations of operators by others.
    engine.disableInline = true
    engine.disableInterpretedOptimization = true
    this.install()
  }

  install() {
    const { methods } = this.engine
    for (const name of ['+', '-', '*', '/', '%']) this.eager(name, (args) => this.arithmetic(name, args))
    for (const name of ['min', 'max']) this.eager(name, (args) => this.extreme(name, args))
    for (const name of ['in', 'substr', 'missing', 'missing_some']) this.eager(name, this[name])
    for (const name of ['starts_with', 'ends_with']) this.eager(name, (args) => this.affix(name, args))
    this.eager('sem_ver', (args) => version(args))
    this.eager('fractional', (args) => fractional(args, this.key, this.root.targetingKey))
    methods.var = { ...this.original.var, method: (key, context) => this.variable(key, context) }
    for (const name of ['==', '!=', '===', '!==', '<', '<=', '>', '>=']) this.lazy(name, (args, run) => this.compare(name, args, run))
    for (const name of ['if', 'and', 'or']) {
      this.lazy(name, (args, _, context, above) => this.original[name].method(args, context, above, this.engine))
    }
    for (const name of ['map', 'filter', 'all', 'some', 'none']) this.lazy(name, (args, run) => this.iterate(name, args, run))
    this.lazy('reduce', (args, run) => this.reduce(args, run))
  }

  // eager replaces an operator whose operands are evaluated first. Where the new
  // result is another one, the class is told by what the operands are.
  eager(name, amended) {
    const original = this.original[name].method ?? this.original[name]
    this.engine.methods[name] = (args, context, above) => {
      const before = attempt(() => original(args, context, above, this.engine))
      const after = amended.call(this, args, context)
      if (before.failed) this.because.add(['starts_with', 'ends_with', 'sem_ver', 'fractional'].includes(name) ? 'inside-lists' : 'operand')
      else if (!same(before.value, after)) this.because.add(this.classOf(name, args))
      return after
    }
  }

  classOf(name, args) {
    switch (name) {
      case 'sem_ver':
        return 'version-text'
      case 'fractional':
        return args[0] === null ? 'null-bucketing' : typeof args[0] !== 'string' && typeof this.root.targetingKey !== 'string' ? 'targeting-key' : 'hash'
      case 'in':
        return 'in'
      case 'substr':
        return 'substr'
      case 'missing':
      case 'missing_some':
        return 'paths'
      default:
        return 'not-finite'
    }
  }

  // lazy replaces an operator that evaluates its operands itself.
  lazy(name, amended) {
    this.engine.methods[name] = {
      lazy: true,
      method: (input, context, above) => {
        if (!Array.isArray(input)) this.because.add('operand')
        const args = Array.isArray(input) ? input : [input]
        const run = (rule, data = context, over = above) => {
          const value = this.engine.run(rule, data, { above: over })
          return value === undefined ? null : value
        }
        return amended(args, run, context, above)
      },
    }
  }

  variable(key, context) {
    const [path, otherwise = null] = Array.isArray(key) ? key : [key]
    const text = toText(path)
    const found = text === '' ? context : walk(context, text)
    const after = text !== '' && (found === undefined || found === null) ? otherwise : found
    const before = attempt(() => this.original.var.method(key, context, [], this.engine))
    if (before.failed || !same(text === '' ? before.value : (before.value ?? otherwise), after)) this.because.add('paths')
    return after
  }

  missing(keys, context) {
    return keys.filter((key) => walk(context, toText(key)) === undefined)
  }

  missing_some([need, keys], context) {
    if (!Array.isArray(keys)) return []
    const missing = this.missing(keys, context)
    return keys.length - missing.length < toNumber(need) ? missing : []
  }

  arithmetic(name, args) {
    const { value, failed } = attempt(() => this.original[name](args))
    return failed || !Number.isFinite(value) ? null : value
  }

  extreme(name, args) {
    const numbers = args.map(toNumber)
    const value = numbers.length === 0 ? NaN : Math[name](...numbers)
    return Number.isFinite(value) ? value : null
  }

  in([item, hay]) {
    if (typeof hay === 'string') return !isContainer(item) && item !== null && item !== undefined && hay.includes(String(item))
    return Array.isArray(hay) && !isContainer(item) && hay.includes(item)
  }

  substr([text, from, length]) {
    if (text === null || text === undefined || isContainer(text)) return null
    const characters = [...String(text)]
    const whole = (value) => Math.trunc(toNumber(value)) || 0
    const begin = whole(from) < 0 ? Math.max(0, characters.length + whole(from)) : whole(from)
    if (length === undefined) return characters.slice(begin).join('')
    const end = whole(length) < 0 ? characters.length + whole(length) : begin + whole(length)
    return end <= begin ? '' : characters.slice(begin, end).join('')
  }

  affix(name, args) {
    if (args.length !== 2 || typeof args[0] !== 'string' || typeof args[1] !== 'string') return null
    return name === 'starts_with' ? args[0].startsWith(args[1]) : args[0].endsWith(args[1])
  }

  compare(name, args, run) {
    if (args.length < 2) {
      this.because.add('operand')
      return name === '!=' || name === '!=='
    }
    let left = run(args[0])
    for (const rule of args.slice(1)) {
      const right = run(rule)
      if (!this.holds(name, left, right)) return false
      left = right
    }
    return true
  }

  holds(name, a, b) {
    const after = relation(name, a, b)
    const before = attempt(() => this.original[name].method([{ preserve: a }, { preserve: b }], null, [], this.engine))
    if (before.failed) this.because.add('operand')
    else if (before.value !== after) this.because.add(isContainer(a) ? 'identity' : typeof a === 'string' && typeof b === 'string' ? 'code-points' : 'null-equality')
    return after
  }

  // list returns what an operator on lists goes through.
  list(source) {
    if (Array.isArray(source)) return source
    if (source) this.because.add('operand')
    return []
  }

  iterate(name, [source, mapper = null], run) {
    const list = this.list(run(source ?? null))
    const each = (element) => run(mapper, element, [])
    const true_ = (element) => Boolean(this.engine.truthy(each(element)))
    switch (name) {
      case 'map':
        return list.map(each)
      case 'filter':
        return list.filter(true_)
      case 'all':
        return list.length > 0 && list.every(true_)
      case 'some':
        return list.some(true_)
      default:
        return !list.some(true_)
    }
  }

  reduce(args, run) {
    const [source, mapper = null, initial] = args
    let list = this.list(run(source ?? null))
    let result = null
    if (args.length > 2) result = run(initial)
    else if (list.length > 0) [result, ...list] = list
    else this.because.add('operand')
    for (const current of list) {
      if (nested(result)) this.because.add('operand')
      result = run(mapper, { accumulator: result, current }, [])
    }
    if (nested(result)) this.because.add('operand')
    return result
  }
}

// nested tells of what flagd-core takes for too deep to be a result of reduce.
const nested = (value) => isContainer(value) && Object.values(value).some(isContainer)

function relation(name, a, b) {
  switch (name) {
    case '===':
      return !isContainer(a) && a === b
    case '!==':
      return !relation('===', a, b)
    case '!=':
      return !relation('==', a, b)
    case '==':
      if (typeof a === 'string' && typeof b === 'string') return a === b
      if (a === null || b === null) return a === b
      return toNumber(a) === toNumber(b)
    default:
  }
  const [x, y] =
    typeof a === 'string' && typeof b === 'string' ? [Buffer.compare(Buffer.from(a), Buffer.from(b)), 0] : [toNumber(a), toNumber(b)]
  return name === '<' ? x < y : name === '<=' ? x <= y : name === '>' ? x > y : x >= y
}
