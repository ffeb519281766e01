"""Play or watch: python scripts/play.py run=<a run's folder> where=both by=agent.

Without a run, a real environment by keyboard: env.id=deltadream/Atari-v0 env.game=Pong.
"""

from agent.config.compose import PLAYING
from agent.dream.play import PlayConfig, play
from agent.runs.cli import command

if __name__ == "__main__":
    command("play", PlayConfig, play, PLAYING)
