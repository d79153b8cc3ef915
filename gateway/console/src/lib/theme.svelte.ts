export type Theme = "system" | "light" | "dark";
const THEMES: Theme[] = ["system", "light", "dark"];

class Look {
  theme = $state<Theme>((localStorage.getItem("theme") as Theme | null) ?? "system");
}

export const looks = new Look();

export function dress(): void {
  if (looks.theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = looks.theme;
}

export function turn(): void {
  looks.theme = THEMES[(THEMES.indexOf(looks.theme) + 1) % THEMES.length] ?? "system";
  localStorage.setItem("theme", looks.theme);
  dress();
}
