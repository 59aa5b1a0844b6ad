/** `sealpost rename`: another name for a device of the account. */
import type { Command } from 'commander'
import { type Context, endWith, examples } from '../command.ts'
import { readDeviceName } from '../device-name.ts'
import { LISTED, selectDevice } from '../device-selection.ts'
import { advise, type Exit } from '../exit-codes.ts'
import { say } from '../output.ts'
import { readDevices, sendLeftovers, withSession } from '../session.ts'

export function addRename(program: Command): void {
  program
    .command('rename')
    .summary('give a device another name')
    .description(
      'Renames a device of the account. Names are unique in an account, at most 50 characters, and shown as they are safe to show.',
    )
    .argument('<device>', 'its name, its id, or at least the first 6 characters of its id')
    .argument('<name>', 'the new name')
    .option('--id', 'DEVICE is an id, whatever devices are called')
    .addHelpText(
      'after',
      examples(['sealpost rename phone "old phone"', 'by name'], ['sealpost rename 0198c2 tablet', 'by the start of its id']),
    )
    .action(endWith(rename))
}

async function rename(context: Context, text: string, raw: string, options: { id?: boolean }): Promise<Exit> {
  const name = readDeviceName(raw)
  return withSession<Exit>(context, async (session) => {
    const { sealpost, watch, signal } = session
    const device = selectDevice(await readDevices(session), text, options.id)
    const given = await watch
      .during((ended) => sealpost.rename(device.device_id, name, { signal: ended }), signal)
      .catch(advise({ invalid_request: { hint: LISTED } }))
    say(`"${device.name}" (${device.device_id}) is now "${given}"`)
    await sendLeftovers(session)
    return 'ok'
  })
}
