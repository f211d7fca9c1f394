"""A command with a few commands below it: `batchllm prices gpt-6-luna` and `batchllm prices update`.

What isn't the name of a command below goes to the first one, whose options the group's own help shows.
"""

from __future__ import annotations

import click


class Fallback(click.Group):
    """A group whose first command need not be named."""

    def __init__(self, *args: object, **attributes: object) -> None:
        super().__init__(*args, **attributes)  # type: ignore[arg-type]  # whatever click's decorator passes on
        self.first: click.Command | None = None

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """The first one that is added is the one that need not be named."""
        if self.first is None:
            self.first = cmd
        super().add_command(cmd, name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        helps = args[:1] in (["--help"], ["-h"])
        if self.first is not None and self.first.name is not None and not helps and (not args or args[0] not in self.commands):
            args = [self.first.name, *args]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        if self.first is None:
            return super().collect_usage_pieces(ctx)
        return self.first.collect_usage_pieces(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.first is not None:
            click.Command.format_options(self.first, ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The others, each with its own --help."""
        others = [(name, command) for name, command in self.commands.items() if command is not self.first]
        with formatter.section("Commands"):
            formatter.write_dl([(f"{ctx.command_path.split(' ', 1)[-1]} {name}", command.get_short_help_str(80)) for name, command in others])
