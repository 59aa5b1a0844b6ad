/** The name that a person gives a device, as it is stored and shown. */
import { givenDeviceName } from '@sealpost/protocol'
import { advise } from './exit-codes.ts'

/** Read before anything is made for the device. A name of which nothing is left is a mistake at the command line. */
export function readDeviceName(raw: string): string {
  try {
    return givenDeviceName(raw)
  } catch (error) {
    return advise({ invalid_request: { exit: 'usage', hint: 'give a name with at least one visible character' } })(error)
  }
}
