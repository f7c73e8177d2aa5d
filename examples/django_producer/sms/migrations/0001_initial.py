"""Creates the tables."""

import uuid

from django.db import migrations, models


class Migration(migrations.Migration):
    """Messages and their outbox."""

    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Message",
            fields=[
                ("uuid", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ("workspace", models.CharField(max_length=64)),
                ("src", models.CharField(max_length=256)),
                ("dest", models.CharField(max_length=256)),
                ("status", models.CharField(max_length=16)),
            ],
        ),
        migrations.CreateModel(
            name="Outbox",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("change", models.TextField()),
                ("problem", models.TextField(null=True)),
            ],
        ),
    ]
