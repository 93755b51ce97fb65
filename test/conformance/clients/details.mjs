// details picks what the tests compare from an evaluation.
export const details = (of) => ({
  value: of.value,
  variant: of.variant ?? '',
  reason: of.reason ?? '',
  code: of.errorCode ?? '',
  message: of.errorMessage ?? '',
  metadata: of.flagMetadata ?? {},
})

const methods = { boolean: 'getBooleanDetails', string: 'getStringDetails', number: 'getNumberDetails', object: 'getObjectDetails' }

export const evaluate = (client, { type, key, default: byDefault, context }) => client[methods[type]](key, byDefault, context)

// listen tells about the events of a client.
export function listen(client, events, say) {
  for (const event of Object.values(events)) {
    client.addHandler(event, (detail) => say({ event, flags: detail?.flagsChanged ?? [], message: detail?.message ?? '' }))
  }
}
