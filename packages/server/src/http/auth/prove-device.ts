/** Devices that prove themselves by an assertion (protocol.md §10), for whatever is done with it then. */
import type { LogStore, SessionStore } from '../../ports/store.ts'
import { type AssertionDeps, acceptAssertion } from './assertions.ts'
import { standingProblem } from './standing.ts'

export type ProofDeps = AssertionDeps & {
  store: AssertionDeps['store'] & Pick<LogStore, 'findSigner'> & Pick<SessionStore, 'findDevice'>
}

const UNAUTHORIZED = { problem: { code: 'unauthorized' } } as const

/** The active device that made the assertion. Only who proved to be a revoked one is told so. */
export async function proveDevice(deps: ProofDeps, signed: { body: string; sig: string }, purpose: string) {
  const { user_id, signer } = await acceptAssertion(deps, signed, purpose, async (claimed) =>
    claimed.signer === 'root' ? null : ((await deps.store.findSigner(claimed.user_id, claimed.signer))?.sign_pub ?? null),
  )
  const device = await deps.store.findDevice(user_id, signer)
  if (device?.active === true) return device
  return (device === null ? null : standingProblem(device)) ?? UNAUTHORIZED
}
