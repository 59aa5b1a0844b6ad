/** Installs the real components that the system tier starts, where they are missing and can be had. */
import { provideComponents } from '@sealpost/testing/components/available'

export async function setup(): Promise<void> {
  await provideComponents()
}
