/** Contracts of this area. */
import type { Contract } from './contract.ts'

export const EVENT_CONTRACTS = {} as const satisfies Record<string, Contract>
