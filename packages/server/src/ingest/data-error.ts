/**
 * Tells a batch that the store cannot digest from a store that cannot work: by the class of the SQLSTATE (PostgreSQL,
 * appendix A) anywhere in the chain of causes.
 */
const DATA_CLASSES = new Set(['22', '23', '42', 'P0', 'XX'])
const CAUSES_MAX = 8

export function isDataError(error: unknown): boolean {
  let at = error
  for (let i = 0; i < CAUSES_MAX && typeof at === 'object' && at !== null; i++) {
    const code: unknown = 'code' in at ? at.code : undefined
    if (typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code)) return DATA_CLASSES.has(code.slice(0, 2))
    at = 'cause' in at ? at.cause : undefined
  }
  return false
}
