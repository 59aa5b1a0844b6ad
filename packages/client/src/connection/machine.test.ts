import { CLOSE, closePolicy, LIMITS } from '@sealpost/protocol'
import { describe, expect, it } from 'vitest'
import { createMachine, type MachineEffect, type MachineInput, type MachineState, step, type TimerName } from './machine.ts'

const JITTER = 0.5
const established = (o: Partial<Extract<MachineInput, { is: 'established' }>> = {}): MachineInput => ({
  is: 'established',
  mode: 'live',
  gen: 0,
  rekey_after_ms: 3_600_000,
  behind: false,
  ...o,
})

function run(inputs: readonly MachineInput[], from = createMachine()): { state: MachineState; effects: MachineEffect[] } {
  let state = from
  const effects: MachineEffect[] = []
  for (const input of inputs) {
    const stepped = step(state, input, JITTER)
    state = stepped.state
    effects.push(...stepped.effects)
  }
  return { state, effects }
}

const OPENED: MachineInput[] = [{ is: 'start' }, { is: 'opened' }, { is: 'proved' }]
const LIVE: MachineInput[] = [...OPENED, established()]
const last = (from: readonly MachineInput[], input: MachineInput): { state: MachineState; effects: MachineEffect[] } =>
  step(run(from).state, input, JITTER)
const does = (effects: readonly MachineEffect[]): string[] => effects.filter((e) => e.do !== 'disarm' && e.do !== 'arm').map((e) => e.do)

const STATES: Record<string, MachineInput[]> = {
  idle: [],
  opening: [{ is: 'start' }],
  hello: [{ is: 'start' }, { is: 'opened' }],
  proving: OPENED,
  replaying: [...OPENED, established({ mode: 'replay' })],
  live: LIVE,
  rekeying: [...LIVE, { is: 'rekey_required' }],
  checking: [{ is: 'start' }, { is: 'opened' }, { is: 'closed', code: 4401 }],
  waiting: [{ is: 'start' }, { is: 'closed', code: 1006 }],
  stopped: [{ is: 'start' }, { is: 'closed', code: 4409 }],
}
const TIMERS: TimerName[] = ['retry', 'step', 'ping', 'pong', 'rekey', 'rekey_step', 'steady']
const INPUTS: MachineInput[] = [
  { is: 'start' },
  { is: 'end' },
  ...TIMERS.map((name): MachineInput => ({ is: 'timer', name })),
  { is: 'opened' },
  ...[...Object.values(CLOSE).map((row) => row.code), 4400, 4449, 4499, 3000].map((code): MachineInput => ({ is: 'closed', code })),
  { is: 'proved' },
  ...(['live', 'replay', 'reset'] as const).map((mode) => established({ mode })),
  established({ behind: true }),
  { is: 'rekeyed', gen: 1, rekey_after_ms: 1_000 },
  { is: 'caught_up' },
  { is: 'reset' },
  { is: 'progress' },
  { is: 'heard' },
  { is: 'rekey_required' },
  { is: 'frames_used' },
  { is: 'going_away', retry_after_ms: 700 },
  { is: 'broken', close: 'bad_frame' },
  { is: 'other_key' },
  { is: 'checked', next: 'connect' },
  { is: 'checked', next: 'later' },
  { is: 'checked', next: 'unauthorized' },
  { is: 'fatal', code: 'log_fork' },
]

describe('the connection machine', () => {
  it('answers every input in every state, and no timer is left when it has ended', () => {
    for (const [name, before] of Object.entries(STATES)) {
      for (const input of INPUTS) {
        const stepped = run([...before, input])
        expect(stepped.state.at, `${name} × ${JSON.stringify(input)}`).toBeTypeOf('string')
        const ended = run([...before, input, { is: 'end' }])
        expect(ended.state).toMatchObject({ at: 'idle' })
        const armed = new Set<string>()
        for (const effect of ended.effects) {
          if (effect.do === 'arm') armed.add(effect.timer)
          if (effect.do === 'disarm') armed.delete(effect.timer)
        }
        expect([...armed], `${name} × ${JSON.stringify(input)}`).toEqual([])
      }
    }
  })

  it('a session begins exactly once and ends exactly once', () => {
    for (const before of Object.values(STATES)) {
      for (const input of INPUTS) {
        const { effects } = run([...before, input, { is: 'end' }])
        const begun = effects.filter((e) => e.do === 'begin').length
        expect(effects.filter((e) => e.do === 'end')).toHaveLength(begun)
      }
    }
  })

  it('each close code is met by its policy, also unknown ones (§4)', () => {
    for (const code of [...Object.values(CLOSE).map((row) => row.code), 4400, 4449, 4450, 4499, 3000, 1005]) {
      const { state } = last(LIVE, { is: 'closed', code })
      if (code === 4401 || code === 4403) expect(state.at).toBe('checking')
      else expect(state.at, String(code)).toBe(closePolicy(code) === 'never' ? 'stopped' : 'waiting')
    }
  })

  it('says what ended it', () => {
    expect(last(LIVE, { is: 'closed', code: 4409 }).state).toMatchObject({ at: 'stopped', code: 'superseded' })
    expect(last(LIVE, { is: 'closed', code: 4410 }).state).toMatchObject({ code: 'account_gone' })
    expect(last(LIVE, { is: 'closed', code: 4406 }).state).toMatchObject({ code: 'unsupported_version' })
    expect(last(STATES['checking']!, { is: 'checked', next: 'unauthorized' }).state).toMatchObject({ code: 'unauthorized' })
  })

  it('five damaged frames in a row stop it; only a session that got something done begins the count anew', () => {
    const damaged: MachineInput[] = [{ is: 'opened' }, { is: 'closed', code: 4451 }, { is: 'timer', name: 'retry' }]
    const four = Array.from({ length: 4 }, () => damaged).flat()
    expect(run([{ is: 'start' }, ...four]).state.at).toBe('opening')
    expect(run([{ is: 'start' }, ...four, ...damaged]).state).toMatchObject({ at: 'stopped', code: 'invalid_message' })
    const between: MachineInput[] = [{ is: 'opened' }, { is: 'proved' }, established()]
    const ends: MachineInput[] = [
      { is: 'closed', code: 1006 },
      { is: 'timer', name: 'retry' },
    ]
    expect(run([{ is: 'start' }, ...four, ...between, ...ends, ...four]).state).toMatchObject({ at: 'stopped', code: 'invalid_message' })
    for (const good of [{ is: 'progress' }, { is: 'timer', name: 'steady' }] as const)
      expect(run([{ is: 'start' }, ...four, ...between, good, ...ends, ...four]).state.at).toBe('opening')
  })

  it('a server that takes a session and drops it at once is met with growing pauses', () => {
    const pauses: number[] = []
    let state = createMachine()
    for (let i = 0; i < 10; i++) {
      for (const input of [...(i === 0 ? OPENED : OPENED.slice(1)), established(), { is: 'closed', code: 1006 } as const]) {
        const stepped = step(state, input, JITTER)
        state = stepped.state
        for (const effect of stepped.effects) if (effect.do === 'arm' && effect.timer === 'retry') pauses.push(effect.ms)
      }
      state = step(state, { is: 'timer', name: 'retry' }, JITTER).state
    }
    expect(pauses.slice(0, 3)).toEqual([375, 750, 1_500])
    expect(pauses.at(-1)).toBe(22_500)
  })

  it('pauses grow with failures and are forgotten with the first progress; going_away names the next one', () => {
    const pauses: number[] = []
    let { state } = run([{ is: 'start' }])
    for (let i = 0; i < 12; i++) {
      const closed = step(state, { is: 'closed', code: 1006 }, JITTER)
      for (const effect of closed.effects) if (effect.do === 'arm') pauses.push(effect.ms)
      state = step(closed.state, { is: 'timer', name: 'retry' }, JITTER).state
    }
    expect(pauses.every((ms, i) => i === 0 || ms >= (pauses[i - 1] ?? 0))).toBe(true)
    expect(pauses.at(-1)).toBe(22_500)
    expect(last(LIVE, { is: 'closed', code: 1006 }).effects).toContainEqual({ do: 'arm', timer: 'retry', ms: 375 })
    const failing: MachineInput[] = [...STATES['waiting']!, { is: 'timer', name: 'retry' }, ...LIVE.slice(1)]
    expect(last(failing, { is: 'closed', code: 1006 }).effects).toContainEqual({ do: 'arm', timer: 'retry', ms: 750 })
    expect(last([...failing, { is: 'progress' }], { is: 'closed', code: 1006 }).effects).toContainEqual({
      do: 'arm',
      timer: 'retry',
      ms: 375,
    })
    const going: MachineInput[] = [...LIVE, { is: 'going_away', retry_after_ms: 1_234 }]
    expect(last(going, { is: 'closed', code: 1001 }).effects).toContainEqual({ do: 'arm', timer: 'retry', ms: 1_234 })
  })

  it('silence is asked about, and without an answer the connection is given up', () => {
    expect(last(LIVE, { is: 'timer', name: 'ping' }).effects).toEqual([
      { do: 'send_ping' },
      { do: 'arm', timer: 'pong', ms: LIMITS.pongMs },
    ])
    expect(last([...LIVE, { is: 'timer', name: 'ping' }], { is: 'heard' }).effects).toContainEqual({ do: 'disarm', timer: 'pong' })
    const { state, effects } = last([...LIVE, { is: 'timer', name: 'ping' }], { is: 'timer', name: 'pong' })
    expect(state.at).toBe('waiting')
    expect(effects[0]).toEqual({ do: 'close', code: CLOSE.timeout.code })
  })

  it('a handshake step that lasts too long ends the attempt', () => {
    for (const before of ['opening', 'hello', 'proving'] as const)
      expect(last(STATES[before]!, { is: 'timer', name: 'step' }).state.at).toBe('waiting')
    expect(last(LIVE, { is: 'timer', name: 'step' }).state.at).toBe('live')
  })

  it('keys are renewed when the server asks, when they are old, and when they are used up, at most once a minute by itself', () => {
    expect(does(last(LIVE, { is: 'rekey_required' }).effects)).toEqual(['send_rekey_hello'])
    expect(does(last(STATES['rekeying']!, { is: 'rekey_required' }).effects)).toEqual([])
    const minute: MachineInput = { is: 'timer', name: 'rekey' }
    expect(does(last(LIVE, { is: 'frames_used' }).effects)).toEqual([])
    expect(does(run([...LIVE, { is: 'frames_used' }, minute]).effects)).toContain('send_rekey_hello')
    expect(does(run([...LIVE, minute]).effects)).not.toContain('send_rekey_hello')
    expect(does(run([...LIVE, minute, { is: 'frames_used' }]).effects)).toContain('send_rekey_hello')
    expect(does(run([...LIVE, minute, minute]).effects)).toContain('send_rekey_hello')
    const done: MachineInput[] = [...LIVE, { is: 'rekey_required' }, { is: 'proved' }, { is: 'rekeyed', gen: 1, rekey_after_ms: 100_000 }]
    expect(run(done).state).toMatchObject({ at: 'live', gen: 1, rekey: 'early' })
  })

  it('a rekey that does not end gives the connection up; after generation 255 there is a fresh session', () => {
    expect(last(STATES['rekeying']!, { is: 'timer', name: 'rekey_step' }).state.at).toBe('waiting')
    const { state, effects } = last([...OPENED, established({ gen: 255 })], { is: 'rekey_required' })
    expect(state.at).toBe('waiting')
    expect(effects[0]).toEqual({ do: 'close', code: 1000 })
  })

  it('a server that refuses us, forgot entries, or has another key is looked into once before anything is given up', () => {
    expect(last(LIVE, { is: 'closed', code: 4401 }).effects).toContainEqual({ do: 'check', why: 'auth' })
    expect(last(OPENED, established({ behind: true })).effects).toContainEqual({ do: 'check', why: 'log' })
    expect(last(STATES['hello']!, { is: 'other_key' }).effects).toContainEqual({ do: 'check', why: 'identity' })
    expect(
      run([...STATES['hello']!, { is: 'other_key' }, { is: 'checked', next: 'connect' }, { is: 'opened' }, { is: 'other_key' }]).state,
    ).toMatchObject({
      at: 'stopped',
      code: 'server_identity',
    })
    // one reason that was looked into does not keep another from being looked into
    expect(
      last([...STATES['hello']!, { is: 'other_key' }, { is: 'checked', next: 'connect' }, { is: 'opened' }], { is: 'closed', code: 4401 })
        .state,
    ).toMatchObject({ at: 'checking', why: 'auth' })
    expect(last(STATES['rekeying']!, { is: 'other_key' }).state.at).toBe('waiting')
    // refused again right after a session: nothing is asked a second time
    const refused: MachineInput[] = [...STATES['checking']!, { is: 'checked', next: 'connect' }, ...LIVE.slice(1)]
    expect(last(refused, { is: 'closed', code: 4401 }).state).toMatchObject({ at: 'stopped', code: 'unauthorized' })
    expect(last([...refused, { is: 'progress' }], { is: 'closed', code: 4401 }).state.at).toBe('checking')
    const again: MachineInput[] = [...STATES['checking']!, { is: 'checked', next: 'connect' }, { is: 'opened' }]
    expect(last(again, { is: 'closed', code: 4401 }).state).toMatchObject({ at: 'stopped', code: 'unauthorized' })
    const behind: MachineInput[] = [...OPENED, established({ behind: true }), { is: 'checked', next: 'connect' }, ...OPENED.slice(1)]
    expect(last(behind, established({ behind: true })).state).toMatchObject({ at: 'stopped', code: 'state_diverged' })
  })
})
