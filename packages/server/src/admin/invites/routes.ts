/** Invites: whoever has the code of one may create an account. The code is told once; the store has its hash. */
import { randomUUID } from 'node:crypto'
import { createInviteCode, hashInviteCode } from '../../http/log/invite-code.ts'
import type { AdminStore, InviteRow } from '../../ports/store.ts'
import { type AdminAnswers, DONE, NOT_FOUND } from '../call.ts'
import { cursorAfter, decodePlace, encodePlace } from '../cursor.ts'
import { PAGE } from '../fields.ts'
import type { INVITE_CONTRACTS } from './contracts.ts'

export type InviteDeps = Pick<AdminStore, 'listInvites' | 'addInvite' | 'revokeInvite'>

export function createInviteRoutes(store: InviteDeps): AdminAnswers<typeof INVITE_CONTRACTS> {
  return {
    async list_invites({ query }) {
      const limit = query.limit ?? PAGE
      const before = decodePlace(query.cursor)
      const invites = await store.listInvites(before === null ? null : { created_at: before.at, invite_id: before.id }, limit)
      const next_cursor = cursorAfter(invites, limit, ({ created_at, invite_id }) => encodePlace({ at: created_at, id: invite_id }))
      return { json: { invites, next_cursor } }
    },
    async create_invite({ body }) {
      const code = createInviteCode()
      const { uses, expires_in_s, note } = body
      const row = { invite_id: randomUUID(), lifetime_ms: expires_in_s * 1_000, uses_max: uses, note, code_hash: hashInviteCode(code) }
      const invite: InviteRow = await store.addInvite(row)
      return { json: { invite, code } }
    },
    revoke_invite: async ({ params }) => ((await store.revokeInvite(params.invite_id)) ? DONE : NOT_FOUND),
  }
}
