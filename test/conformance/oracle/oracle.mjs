// Asks the evaluator of flagd for JavaScript.

import { FlagdCore } from '@openfeature/flagd-core'
import { Amendments } from './amendments.mjs'
import { operators } from './flags.mjs'

const silent = { debug() {}, info() {}, warn() {}, error() {} }
const nothing = Symbol('nothing')

// freeze sets the clock: the evaluator reads it for $flagd.timestamp.
export function freeze(seconds) {
  Date.now = () => seconds * 1000 + 500
}

function load(set, interpreted) {
  const core = new FlagdCore(undefined, silent, { disableDynamicCodeGeneration: interpreted })
  core.setConfigurations(JSON.stringify(set))
  return core
}

// raw returns what the rule of the flag came to, as the name of a variant;
// undefined when there is none or it failed.
export function raw(set, key, context) {
  const flag = load(set, false).getFlag(key)
  try {
    return flag._targeting?.evaluate(key, context, silent)?.toString()
  } catch {
    return undefined
  }
}

// decide returns what the flag is in the context.
export function decide(set, key, type, context) {
  return outcome(load(set, false), key, type, context)
}

const failure = (code) => ({ value: null, variant: null, reason: 'ERROR', code })

function outcome(core, key, type, context) {
  const method = `resolve${type[0].toUpperCase()}${type.slice(1)}Evaluation`
  const got = core[method](key, nothing, context, silent)
  if (got.errorCode) return failure(got.errorCode)
  const none = got.value === nothing
  return { value: none ? null : got.value, variant: none ? null : got.variant, reason: got.reason, code: '' }
}

// amended returns what Holdfast has to decide: what flagd-core does once its
// operators are amended, and the classes of the amendments that mattered.
export function amended(set, key, type, context, targeting) {
  const core = load(set, true)
  const flag = core.getFlag(key)
  if (flag.state === 'DISABLED') return { decision: outcome(core, key, type, context), because: [] }
  if (broken(targeting)) return { decision: failure('PARSE_ERROR'), because: ['strict-rules'] }
  if (!flag._targeting) return { decision: outcome(core, key, type, context), because: [] }
  const amendments = new Amendments(flag._targeting._engine, key, context)
  const decision = outcome(core, key, type, context)
  return { decision, because: [...amendments.because] }
}

// broken tells of what is wrong in a definition whatever the context: a rule that
// is no object, and anywhere in it an object that is not one operator.
function broken(targeting) {
  if (targeting === undefined || targeting === null) return false
  return typeof targeting !== 'object' || Array.isArray(targeting) || holdsBroken(targeting)
}

function holdsBroken(rule) {
  if (Array.isArray(rule)) return rule.some(holdsBroken)
  if (rule === null || typeof rule !== 'object') return false
  const keys = Object.keys(rule)
  if (keys.length === 0) return false
  return keys.length > 1 || !operators.includes(keys[0]) || holdsBroken(rule[keys[0]])
}
