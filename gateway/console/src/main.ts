import { mount } from "svelte";
import App from "./App.svelte";
import "./app.css";

const target = document.getElementById("app");
if (target) {
  // What was painted before any script had come.
  target.replaceChildren();
  mount(App, { target });
}
