/** The one way an entry comes into a device log, by the socket or over REST: appended, then told to the sessions of the account (R01). */
import type { AppendRequest, AppendResult, Bus, LogStore, Store } from '../../ports/store.ts'

/** Also an entry that was there already is told: who appended it may not have come to it. */
export async function appendAndTell(
  store: Pick<LogStore, 'appendEntry'> & Pick<Store, 'history_id'>,
  bus: Pick<Bus, 'publish'>,
  request: AppendRequest,
): Promise<AppendResult> {
  const result = await store.appendEntry(request)
  if (result.ok)
    bus.publish(result.user_no, {
      is: 'log',
      history_id: store.history_id,
      log_seq: result.log_seq,
      revoked: result.revoked.map((device) => device.device_id),
    })
  return result
}
