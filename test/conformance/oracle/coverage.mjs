// Counts what the cases cover.

import { classes } from './amendments.mjs'
import { operators } from './flags.mjs'

const outcomes = ['TARGETING_MATCH', 'DEFAULT', 'STATIC', 'DISABLED', 'PARSE_ERROR', 'GENERAL', 'TYPE_MISMATCH']

export class Coverage {
  #byOperator = Object.fromEntries(operators.map((operator) => [operator, {}]))
  #all = {}
  #count = 0
  #classes = {}

  add({ definition, want, because = [] }) {
    const outcome = want.code || want.reason
    this.#count++
    for (const name of because) this.#classes[name] = (this.#classes[name] ?? 0) + 1
    this.#all[outcome] = (this.#all[outcome] ?? 0) + 1
    for (const operator of operatorsOf(definition.targeting, new Set())) {
      const row = this.#byOperator[operator]
      if (row) row[outcome] = (row[outcome] ?? 0) + 1
    }
  }

  // rare returns the classes with fewer than n cases.
  rare(n) {
    return classes.filter((name) => (this.#classes[name] ?? 0) < n)
  }

  // holes returns the operators without a case that matches.
  holes() {
    return operators.filter((operator) => !this.#byOperator[operator].TARGETING_MATCH)
  }

  report() {
    const row = (name, counts) =>
      name.padEnd(14) + outcomes.map((outcome) => String(counts[outcome] ?? 0).padStart(outcome.length + 2)).join('')
    return [
      ' '.repeat(14) + outcomes.map((outcome) => `  ${outcome}`).join(''),
      ...operators.map((operator) => row(operator, this.#byOperator[operator])),
      row('all', this.#all),
      `${this.#count} cases; amendments that mattered: ${JSON.stringify(this.#classes)}`,
    ].join('\n')
  }
}

function operatorsOf(rule, found) {
  if (Array.isArray(rule)) rule.forEach((element) => operatorsOf(element, found))
  else if (rule !== null && typeof rule === 'object') {
    for (const [key, operand] of Object.entries(rule)) {
      found.add(key)
      operatorsOf(operand, found)
    }
  }
  return found
}
