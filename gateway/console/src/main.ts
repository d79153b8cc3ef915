import { mount } from "svelte";
import App from "./App.svelte";
import "./app.css";

// A field that is wrong is shown before the browser points at it: within a closed part nobody would see why nothing happens.
document.addEventListener(
  "invalid",
  (event) => {
    for (let at = (event.target as Element).closest("details"); at; at = at.parentElement?.closest("details") ?? null) at.open = true;
  },
  true,
);

const target = document.getElementById("app");
if (target) {
  // What was painted before any script had come.
  target.replaceChildren();
  mount(App, { target });
}
