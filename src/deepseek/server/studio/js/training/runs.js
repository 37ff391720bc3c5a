// Which training runs the server knows, looked at again while the page is open; what changed is seen by the list alone.

import { Lookout } from "../lookout.js";

class Runs extends Lookout {
  list = null; // null: not told yet
  folder = "";
  hasMore = false;

  named(id) {
    return this.list?.find((run) => run.id === id) ?? null;
  }

  take({ data, folder, has_more }) {
    Object.assign(this, { list: data, folder, hasMore: has_more });
  }
}

export const runs = new Runs("v1/training/runs", 2000);
