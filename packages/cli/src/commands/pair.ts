/** `sealpost pair`: takes a new device into the account. */
import type { Command } from 'commander'
import { confirmPhrase } from '../check-phrase.ts'
import { type Context, endWith, examples } from '../command.ts'
import { advise, type Exit, UsageError } from '../exit-codes.ts'
import { isInteractive, print, say } from '../output.ts'
import { sendLeftovers, withSession } from '../session.ts'

type Options = { yes?: boolean }

export function addPair(program: Command): void {
  program
    .command('pair')
    .summary('add a device: shows a code for it')
    .description(
      'Shows a pairing code (and a QR code on a terminal), waits for the new device, and adds it once you have compared the check phrase.\n' +
        'With --yes nobody is asked. The code is the only line on stdout.',
    )
    .option('--yes', 'add the device without comparing the check phrase')
    .addHelpText(
      'after',
      examples(['sealpost pair', 'then, on the new device: sealpost join CODE …'], ['sealpost pair --yes', 'for scripts']),
    )
    .action(endWith(pair))
}

async function pair(context: Context, options: Options): Promise<Exit> {
  const skip = options.yes === true
  if (!skip && !isInteractive())
    throw new UsageError('pair asks whether the check phrases are the same, which needs a terminal', 'use --yes to go on without comparing')
  return withSession<Exit>(context, async (session) => {
    await sendLeftovers(session)
    const { sealpost, watch } = session
    // A server that goes for a while is waited for: until the code ends.
    const signal = AbortSignal.any([session.signal, watch.failed])
    const device = await sealpost
      .pair({
        onCode: (code, expires_at) => void showCode(code, expires_at),
        confirm: (phrase, { name, device_type }) =>
          confirmPhrase(phrase, `Add "${name}" (${device_type})? Does it show the same four signs?`, skip, signal),
        signal,
      })
      .catch((error: unknown) => {
        throw watch.failure ?? error
      })
      .catch(
        advise({
          not_found: { hint: 'the code has ended; start sealpost pair again for a new one' },
          name_taken: { hint: 'start sealpost pair again, and on the new device choose another name: sealpost join CODE --name NAME' },
        }),
      )
    say(`added "${device.name}" (${device.device_id})`)
    return 'ok'
  })
}

async function showCode(code: string, expires_at: number): Promise<void> {
  if (process.stdout.isTTY) {
    const { renderUnicodeCompact } = await import('uqr')
    say(renderUnicodeCompact(code))
  }
  await print(`${code}\n`).catch(() => {})
  const minutes = Math.max(1, Math.round((expires_at - Date.now()) / 60_000))
  say(`on the new device, within ${minutes} minutes: sealpost join ${code} --server URL --name NAME`)
}
