// Which sample a key is, and what a hit said: remembered from what was shown in this tab.

const ids = new Map();

export const idOf = (key) => ids.get(key);
export const remember = (key, id) => ids.set(key, id);
