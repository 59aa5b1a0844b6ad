/** The keys that sign tokens: which there are, and the change to the next one before its time (G24). */
import type { SigningKeys } from '../../http/auth/signing-keys.ts'
import { type AdminAnswers, DONE } from '../call.ts'
import type { KEY_CONTRACTS } from './contracts.ts'

export function createKeyRoutes(keys: Readonly<Record<'rest' | 'admin', SigningKeys>>): AdminAnswers<typeof KEY_CONTRACTS> {
  return {
    list_signing_keys: async () => {
      const lists = Object.entries(keys).map(([purpose, of]) => of.list().map((key) => ({ purpose, ...key })))
      return { json: { keys: lists.flat() } }
    },
    async rotate_signing_keys({ body }) {
      await keys[body.purpose].rotate()
      return DONE
    },
  }
}
