import { createNodeFigures } from '../../../server/src/relay/node-figures.ts'
import { openNodeLease } from '../../../server/src/relay/sessions/node-lease.ts'
import { createRelay, type Relay, type RelayDeps } from '../../../server/src/relay/relay.ts'

/** A relay that is a node until it closes, as `server.ts` makes it. */
export async function openRelay(deps: Omit<RelayDeps, 'node'>): Promise<Relay> {
  let relay: Relay | null = null
  const changed = (): void => relay?.sessions.lookNow()
  const figures = createNodeFigures({ relay: () => relay, bus: deps.bus, draining: () => false })
  const node = await openNodeLease({ store: deps.store, figures, changed, logger: deps.logger })
  relay = createRelay({ ...deps, node })
  const { close } = relay
  return { ...relay, close: () => close().then(() => node.close()) }
}
