/** The address of a server as an option or a variable gave it: a refusal is a mistake of the command line, by that name. */
import { parseServerUrl, SealpostError } from '@sealpost/protocol'
import { UsageError } from './exit-codes.ts'

/** `from`: the option or the variable. */
export function readServerUrl(text: string, from: string): ReturnType<typeof parseServerUrl> {
  try {
    return parseServerUrl(text)
  } catch (error) {
    if (!(error instanceof SealpostError)) throw error
    throw new UsageError(`${from}: ${error.message}`, error.hint ?? 'write it as https://relay.example')
  }
}
