/** THE list of contracts for operators: one for each row of `admin-routes.ts`. */
import type { ADMIN_ROUTES, AdminRouteName, Role } from '@sealpost/protocol'
import type { Answer, CallOf } from '../http/call.ts'
import type { Contract } from '../http/contract.ts'
import { ADMIN_CONTRACTS } from './admins/contracts.ts'
import { SYSTEM_CONTRACTS } from './system/contracts.ts'
import { USER_CONTRACTS } from './users/contracts.ts'

export const CONTRACTS = { ...ADMIN_CONTRACTS, ...USER_CONTRACTS, ...SYSTEM_CONTRACTS } as const satisfies Record<AdminRouteName, Contract>

/** An admin, as the database has it at this request. */
export type AdminCaller = { admin_id: string; name: string; role: Role }

/** Answers of many routes. */
export const DONE = { json: { done: true } } as const
export const NOT_FOUND = { problem: { code: 'not_found' } } as const

export type AdminCall<N extends AdminRouteName> = CallOf<(typeof ADMIN_ROUTES)[N], (typeof CONTRACTS)[N], AdminCaller>
export type AdminAnswers<N extends AdminRouteName> = { readonly [K in N]: (call: AdminCall<K>) => Promise<Answer> }
