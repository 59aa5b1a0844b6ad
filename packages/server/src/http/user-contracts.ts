/** Contracts of this area. */
import type { Contract } from './contract.ts'

export const USER_CONTRACTS = {} as const satisfies Record<string, Contract>
