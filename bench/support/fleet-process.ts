/**
 * Fleets in a process of their own, so that what the load costs is not counted as the relay's. Calls go over the channel and are answered
 * in any order; the process ends with its channel.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { NODE_FLAGS } from './run.ts'
import { createFleet, type Counts, type Faults, type Fleet, type FleetPlan, type Quantiles, type Return } from './fleet.ts'

type Calls = {
  [N in keyof Fleet]: (...args: Parameters<Fleet[N]>) => Promise<Awaited<ReturnType<Fleet[N]>>>
}
export type RemoteFleet = Calls
export type { Counts, Faults, FleetPlan, Quantiles, Return }

type Call =
  | { id: number; fleet: number; name: keyof Fleet; args: unknown[] }
  | { id: number; fleet: number; name: 'create'; args: [FleetPlan] }
type Answer = { id: number; value?: unknown; error?: string }

export type FleetProcess = {
  create(plan: FleetPlan): Promise<RemoteFleet>
  /** Ends the process, and whatever it does. */
  end(): void
}

export function startFleets(): FleetProcess {
  const child = fork(import.meta.filename, { execArgv: NODE_FLAGS })
  const waiting = new Map<number, PromiseWithResolvers<unknown>>()
  let calls = 0
  let fleets = 0
  child.on('message', ({ id, value, error }: Answer) => {
    const call = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) call?.resolve(value)
    else call?.reject(new Error(error))
  })
  child.on('exit', (code) => {
    for (const call of waiting.values()) call.reject(new Error(`the load ended with ${code}`))
  })
  return {
    async create(plan) {
      const fleet = fleets++
      const call = (name: Call['name'], args: unknown[]): Promise<unknown> =>
        ask(child, waiting, { id: calls++, fleet, name, args } as Call)
      await call('create', [plan])
      return new Proxy({} as RemoteFleet, {
        // a promise of it must not take it for one
        get: (_, name) => (name === 'then' ? undefined : (...args: unknown[]) => call(name as keyof Fleet, args)),
      })
    },
    end: () => void child.kill('SIGKILL'),
  }
}

function ask(child: ChildProcess, waiting: Map<number, PromiseWithResolvers<unknown>>, call: Call): Promise<unknown> {
  const answer = Promise.withResolvers<unknown>()
  waiting.set(call.id, answer)
  child.send(call)
  return answer.promise
}

// ---------------------------------------------------------------- the other end

function serveCalls(): void {
  const fleets: Fleet[] = []
  process.on('message', (call: Call) => {
    const answer = (rest: Omit<Answer, 'id'>): void => void process.send?.({ id: call.id, ...rest })
    const run = async (): Promise<unknown> => {
      if (call.name === 'create') return void (fleets[call.fleet] = createFleet(call.args[0]))
      const act = fleets[call.fleet]?.[call.name] as ((...args: unknown[]) => unknown) | undefined
      return act?.(...call.args)
    }
    run().then(
      (value) => answer({ value }),
      (error: unknown) => answer({ error: String(error) }),
    )
  })
  process.on('disconnect', () => process.exit(0))
}

if (process.argv[1] === import.meta.filename) serveCalls()
