/** `sealpost revoke`: shuts a device out for good. */
import type { Command } from 'commander'
import { type Context, endWith, examples } from '../command.ts'
import { selectDevice } from '../device-selection.ts'
import type { Exit } from '../exit-codes.ts'
import { say } from '../output.ts'
import { readDevices, sendLeftovers, withSession } from '../session.ts'

export function addRevoke(program: Command): void {
  program
    .command('revoke')
    .summary('shut a device out for good')
    .description('Revokes a device: once this returns, the server takes nothing more from it, and what is sent from now on it cannot read.')
    .argument('<device>', 'its name, its id, or at least the first 6 characters of its id')
    .option('--id', 'DEVICE is an id, whatever devices are called')
    .addHelpText('after', examples(['sealpost revoke phone', 'by name'], ['sealpost revoke 0198c2', 'by the start of its id']))
    .action(endWith(revoke))
}

async function revoke(context: Context, text: string, options: { id?: boolean }): Promise<Exit> {
  return withSession<Exit>(context, async (session) => {
    const { sealpost, watch, signal } = session
    const device = selectDevice(await readDevices(session), text, options.id)
    if (device.revoked !== null) {
      say(`"${device.name}" (${device.device_id}) was revoked already, by "${device.revoked.by_name}"`)
      return 'ok'
    }
    await watch.during((ended) => sealpost.revoke(device.device_id, { signal: ended }), signal)
    say(`revoked "${device.name}" (${device.device_id})`)
    await sendLeftovers(session)
    return 'ok'
  })
}
