/** What a route of the listener of admins sees of a request, and answers that many of them give. */
import type { ADMIN_ROUTES, AdminRouteName, Role } from '@sealpost/protocol'
import type { Answer, CallOf, Contracts } from '../http/call.ts'

/** An admin, as the database has it at this request. */
export type AdminCaller = { admin_id: string; name: string; role: Role }

/** A request of an admin for a route, as one of these contracts has it. */
export type AdminCall<C extends Contracts, N extends keyof C & AdminRouteName> = CallOf<(typeof ADMIN_ROUTES)[N], C[N], AdminCaller>
/** An answer for each of these contracts. */
export type AdminAnswers<C extends Contracts> = {
  readonly [N in keyof C & AdminRouteName]: (call: AdminCall<C, N>) => Promise<Answer>
}

export const DONE = { json: { done: true } } as const
export const NOT_FOUND = { problem: { code: 'not_found' } } as const
