/** `sealpost devices`: the devices of the account, as the verified device log says. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Device } from '@sealpost/client'
import type { Command } from 'commander'
import { type Context, endWith, examples } from '../command.ts'
import type { Exit } from '../exit-codes.ts'
import { formatTable, plain, print, say } from '../output.ts'
import { catchUp, type Session, withSession } from '../session.ts'

/** Presence comes right after the handshake. */
const PRESENCE_MS = 3_000
const LOOK_MS = 20

export function addDevices(program: Command): void {
  program
    .command('devices')
    .summary('list the devices of the account')
    .description('Lists the devices of the account, revoked ones too. Without a connection it shows what this device knows.')
    .option('--json', 'one JSON object per line')
    .addHelpText(
      'after',
      examples(['sealpost devices', 'a table'], ["sealpost devices --json | jq -r 'select(.self).device_id'", 'the id of this device']),
    )
    .action(endWith(listDevices))
}

async function listDevices(context: Context, options: { json?: boolean }): Promise<Exit> {
  return withSession<Exit>(context, async (session) => {
    const behind = await catchUp(session, PRESENCE_MS)
    if (behind !== null) say(`${behind.message}: this is what this device knows`)
    const devices = behind === null ? await devicesWithPresence(session) : await session.sealpost.devices()
    await print(options.json === true ? devices.map((device) => `${JSON.stringify(device)}\n`).join('') : `${plain(describe(devices))}\n`)
    return behind?.code === 'log_withheld' ? 'integrity' : 'ok'
  })
}

async function devicesWithPresence({ sealpost, signal }: Session): Promise<Device[]> {
  const until = performance.now() + PRESENCE_MS
  for (;;) {
    const devices = await sealpost.devices()
    const isKnown = devices.some((device) => device.self && device.online !== null)
    if (isKnown || signal.aborted || performance.now() > until) return devices
    await sleep(LOOK_MS)
  }
}

function describe(devices: readonly Device[]): string {
  const rows = devices.map((device) => [
    `${device.name}${device.self ? ' (this device)' : ''}`,
    device.device_type,
    device.device_id,
    day(device.added_at),
    presenceOf(device),
  ])
  return formatTable([['NAME', 'TYPE', 'ID', 'ADDED', 'STATE'], ...rows])
}

function presenceOf({ revoked, suspended, online, last_seen }: Device): string {
  if (revoked !== null) return `revoked by ${revoked.by_name} ${day(revoked.at)}`
  if (suspended) return 'suspended by the operator of the server'
  if (online === true) return 'online'
  if (last_seen !== null) return `last seen ${day(last_seen)}`
  return online === false ? 'offline' : 'unknown'
}

function day(ms: number | null): string {
  return ms === null ? '-' : new Date(ms).toISOString().slice(0, 16).replace('T', ' ')
}
